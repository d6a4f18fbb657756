use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::durable::write_private;

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).expect("written").permissions().mode() & 0o777
}

#[test]
fn an_identity_survives_its_folder_and_its_key_is_private() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let at = folder.path().join("server");
    let ca = authority();
    let saved = issue(&ca, Role::Server, "s1");
    saved.save(&at).expect("saved");
    assert_eq!(mode(&at.join("identity.key")), 0o600);
    let loaded = Identity::load(&at, now_ms()).expect("loaded");
    assert_eq!((loaded.name(), loaded.peer()), (saved.name(), saved.peer()));
    assert_eq!(loaded.ca_fingerprint(), ca.fingerprint());
    assert!(!format!("{loaded:?}{ca:?}").contains("PRIVATE"));

    ca.save(&at).expect("saved");
    assert_eq!(mode(&at.join("ca.key")), 0o600);
    let ca = Authority::load(&at, now_ms()).expect("loaded");
    assert_eq!((ca.cluster(), ca.fingerprint()), (CLUSTER, loaded.ca_fingerprint()));
    issue(&ca, Role::User, "ada").check(now_ms()).expect("signed by the loaded CA");
}

#[test]
fn each_fault_of_a_folder_has_its_own_words() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let (at, ca) = (folder.path(), authority());
    let fault = |now_ms| Identity::load(at, now_ms).expect_err("must be refused").to_string();
    let error = fault(now_ms());
    assert!(error.contains("identity.crt does not exist; create an identity"), "{error}");

    issue(&ca, Role::Agent, "n1").save(at).expect("saved");
    assert!(fault(now_ms() + 91 * DAY_MS).contains("agent n1 expired at 20"), "{}", fault(now_ms() + 91 * DAY_MS));
    assert!(fault(now_ms() - DAY_MS).contains("not valid yet; check this machine's clock"));
    Identity::load(at, now_ms() - 4 * 60_000).expect("issued five minutes back for slow clocks");

    let key = at.join("identity.key");
    fs::set_permissions(&key, Permissions::from_mode(0o640)).expect("changed");
    assert!(fault(now_ms()).contains("has mode 0640: others can read it; run: chmod 600"));
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("changed");

    fs::write(at.join("ca.crt"), authority().ca_pem()).expect("written");
    assert!(fault(now_ms()).contains("was not signed by the CA sha256:"));
    fs::write(at.join("ca.crt"), "not a certificate").expect("written");
    assert!(fault(now_ms()).contains("CA certificate is not valid PEM"));
    fs::write(at.join("ca.crt"), ca.ca_pem()).expect("written");
    fs::write(&key, issue(&ca, Role::Agent, "n1").key_pem()).expect("written");
    assert!(fault(now_ms()).contains("private key does not belong to the certificate of agent n1"));
}

#[test]
fn a_renewal_that_fails_leaves_the_identity_that_was_there() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let (at, ca) = (folder.path(), authority());
    let (old, new) = (issue(&ca, Role::Agent, "n1"), issue(&ca, Role::Agent, "n1"));
    old.save(at).expect("saved");
    // The certificate cannot be written: what is written aside has its name taken by a folder with something in it.
    fs::create_dir_all(at.join("identity.crt.new/taken")).expect("made");
    let error = new.save(at).expect_err("the certificate cannot be written").to_string();
    assert!(error.contains("identity.crt"), "{error}");
    assert_eq!(Identity::load(at, now_ms()).expect("the old one").peer(), old.peer());

    fs::remove_dir_all(at.join("identity.crt.new")).expect("removed");
    new.save(at).expect("saved");
    assert_eq!(Identity::load(at, now_ms()).expect("the new one").peer(), new.peer());
    assert!(!at.join("identity.key.next").exists(), "the key has taken its place");
}

#[test]
fn a_renewal_that_was_cut_off_before_its_key_took_its_place_is_finished_by_who_loads_it() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let (at, ca) = (folder.path(), authority());
    let (old, new) = (issue(&ca, Role::Agent, "n1"), issue(&ca, Role::Agent, "n1"));
    old.save(at).expect("saved");
    let (key, next) = (at.join("identity.key"), at.join("identity.key.next"));
    write_private(&next, new.key_pem().as_bytes()).expect("written");
    assert_eq!(Identity::load(at, now_ms()).expect("cut off before the certificate").peer(), old.peer());

    fs::write(at.join("identity.crt"), new.cert_pem()).expect("written");
    assert_eq!(Identity::load(at, now_ms()).expect("cut off after the certificate").peer(), new.peer());
    assert_eq!((fs::read_to_string(&key).expect("read"), mode(&key)), (new.key_pem().to_owned(), 0o600));
    assert!(!next.exists(), "the key has taken its place");

    // The first identity of a folder, cut off at the same place.
    fs::rename(&key, &next).expect("renamed");
    assert_eq!(Identity::load(at, now_ms()).expect("without any key before it").peer(), new.peer());
    assert!(key.exists() && !next.exists());
}

#[test]
fn what_was_cut_off_is_finished_before_another_renewal_begins() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let (at, ca) = (folder.path(), authority());
    let [old, new, newest] = ["n1"; 3].map(|who| issue(&ca, Role::Agent, who));
    old.save(at).expect("saved");
    fs::write(at.join("identity.crt"), new.cert_pem()).expect("written");
    write_private(&at.join("identity.key.next"), new.key_pem().as_bytes()).expect("written");
    fs::create_dir_all(at.join("identity.crt.new/taken")).expect("made");
    newest.save(at).expect_err("the certificate cannot be written");
    assert_eq!(Identity::load(at, now_ms()).expect("its key was not lost").peer(), new.peer());
}

#[test]
fn a_renewal_leaves_a_ca_that_is_the_same_alone() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let (at, ca) = (folder.path(), authority());
    let file = || fs::metadata(at.join("ca.crt")).expect("written").ino();
    issue(&ca, Role::Agent, "n1").save(at).expect("saved");
    let before = file();
    issue(&ca, Role::Agent, "n1").save(at).expect("saved");
    assert_eq!(file(), before);
    issue(&authority(), Role::Agent, "n1").save(at).expect("saved");
    assert_ne!(file(), before, "another CA is written");
}

#[test]
fn a_bundle_of_two_cas_accepts_certificates_of_both() {
    let (old, new) = (authority(), authority());
    let bundle = format!("{}{}", old.ca_pem(), new.ca_pem());
    for ca in [&old, &new] {
        let issued = issue(ca, Role::Agent, "n1");
        Identity::from_pem(issued.cert_pem(), issued.key_pem(), &bundle, now_ms()).expect("known CA");
    }
}

#[test]
fn of_a_bundle_the_ca_signs_whose_key_is_beside_it() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let (at, old, new) = (folder.path(), authority(), authority());
    for bundle in [[&old, &new], [&new, &old]].map(|[one, other]| format!("{}{}", one.ca_pem(), other.ca_pem())) {
        for ca in [&old, &new] {
            ca.save(at).expect("saved");
            fs::write(at.join("ca.crt"), &bundle).expect("written");
            let loaded = Authority::load(at, now_ms()).expect("its key");
            assert_eq!((loaded.fingerprint(), loaded.ca_pem()), (ca.fingerprint(), bundle.as_str()));
            let issued = issue(&loaded, Role::Server, "s1");
            issued.check(now_ms()).expect("signed by one of them");
            assert_eq!(issued.ca_fingerprint(), ca.fingerprint());
            assert!([&old, &new].iter().all(|ca| issued.believes(ca.fingerprint())));
        }
    }
    fs::write(at.join("ca.crt"), old.ca_pem()).expect("written");
    let error = Authority::load(at, now_ms()).expect_err("the key is the new one's").to_string();
    assert!(error.contains("does not belong to the certificate of the CA of cluster c1"), "{error}");
}

#[test]
fn the_signer_chooses_every_name_and_the_request_none() {
    let ca = authority();
    let request = KeyRequest::new().expect("a key");
    let sans = Sans { dns: vec!["node-1.example".to_owned()], ip: vec!["10.0.0.1".parse().expect("an address")] };
    let pem = ca.sign(request.csr_pem(), &name(Role::Agent, "n1"), &sans, now_ms(), DAY_MS).expect("signed");
    let joined = request.finish(&pem, ca.ca_pem(), now_ms()).expect("fits");
    assert_eq!(joined.name(), &name(Role::Agent, "n1"));
    assert!(joined.not_after_ms() <= now_ms() + DAY_MS);

    let greedy_key = KeyPair::generate().expect("a key");
    let mut greedy = CertificateParams::new(vec!["server.muster.internal".to_owned()]).expect("params");
    let uri = "muster://c1/admin/eve".try_into().expect("ASCII");
    greedy.subject_alt_names.push(rcgen::SanType::URI(uri));
    greedy.is_ca = rcgen::IsCa::NoCa;
    let csr = greedy.serialize_request(&greedy_key).and_then(|csr| csr.pem()).expect("a request");
    let pem = ca.sign(&csr, &name(Role::Agent, "n2"), &Sans::default(), now_ms(), DAY_MS).expect("signed");
    let der = tls::certificates(&pem, "test").expect("PEM").swap_remove(0);
    let peer = Peer::from_der(&der).expect("exactly one name");
    assert!(peer.is_named(Role::Agent, "n2") && !peer.is(Role::Admin));
    let raw = String::from_utf8_lossy(&der).into_owned();
    assert!(!raw.contains("eve") && !raw.contains("server.muster"), "nothing of the request's names");
}

#[test]
fn a_certificate_tells_the_names_with_which_another_is_issued() {
    let ca = authority();
    let ip = ["10.0.0.1", "fd00::7"].map(|ip| ip.parse::<IpAddr>().expect("an address")).to_vec();
    let sans = Sans { dns: vec!["a.example".to_owned(), "b.example".to_owned()], ip };
    let mut issued = issue(&ca, Role::Server, "s1");
    assert_eq!(issued.sans(), Sans::default(), "the role's own name is no further one");
    for _ in 0..2 {
        issued = ca.issue(issued.name(), &sans, now_ms(), DAY_MS).expect("issued");
        assert_eq!(issued.sans(), sans);
    }
    let begins = (now_ms() - issued.not_before_ms(), issued.not_after_ms() - issued.not_before_ms());
    assert!(begins.0 >= 5 * 60_000 && begins.1 >= DAY_MS && begins.1 <= DAY_MS + 6 * 60_000, "{begins:?}");
}

#[test]
fn requests_that_prove_nothing_are_refused() {
    let ca = authority();
    let request = KeyRequest::new().expect("a key");
    let sign = |csr: &str, who: &Name, sans: &Sans| ca.sign(csr, who, sans, now_ms(), DAY_MS);
    let agent = name(Role::Agent, "n1");
    for bad in ["", "hello", &"x".repeat(20_000), ca.ca_pem()] {
        let answer = sign(bad, &agent, &Sans::default());
        assert!(matches!(answer, Err(IdentityError::BadRequest(_))), "{answer:?}");
    }
    let stranger = Name::new("c2", Role::Agent, "n1").expect("valid");
    assert!(sign(request.csr_pem(), &stranger, &Sans::default()).is_err());
    let forged = Name { cluster: CLUSTER.to_owned(), role: Role::Agent, name: "a/../admin".to_owned() };
    assert!(matches!(sign(request.csr_pem(), &forged, &Sans::default()), Err(IdentityError::BadWord { .. })));
    let sans = Sans { dns: vec!["bad name".to_owned()], ip: Vec::new() };
    assert!(sign(request.csr_pem(), &agent, &sans).is_err());
    // The signer's answer to somebody else's request does not fit this key.
    let other = KeyRequest::new().expect("a key");
    let pem = sign(other.csr_pem(), &agent, &Sans::default()).expect("signed");
    assert!(matches!(request.finish(&pem, ca.ca_pem(), now_ms()), Err(IdentityError::KeyMismatch { .. })));
}

#[test]
fn a_certificate_names_one_principal_or_none() {
    let ca = authority();
    let der = tls::certificates(ca.ca_pem(), "test").expect("PEM").swap_remove(0);
    assert!(Peer::from_der(&der).is_err(), "a CA is nobody");
    let self_signed = |uris: &[&str]| {
        let mut params = CertificateParams::default();
        let san = |uri: &&str| rcgen::SanType::URI((*uri).try_into().expect("ASCII"));
        params.subject_alt_names = uris.iter().map(san).collect();
        params.self_signed(&KeyPair::generate().expect("a key")).expect("signed").der().to_vec()
    };
    Peer::from_der(&self_signed(&["muster://c1/user/ada"])).expect("one name");
    for bad in [&[][..], &["muster://c1/user/ada", "muster://c1/admin/ada"], &["https://x"], &["muster://c1/user/"]] {
        assert!(Peer::from_der(&self_signed(bad)).is_err(), "{bad:?}");
    }
    let mut trailing = self_signed(&["muster://c1/user/ada"]);
    trailing.push(0);
    assert!(Peer::from_der(&trailing).is_err());
}
