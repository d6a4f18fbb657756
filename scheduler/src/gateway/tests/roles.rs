use crate::gateway::roles::{CALLS, Caller, ON_BEHALF_OF, check};
use muster_engine::command::Principal;
use muster_proto::convert::error::ErrorCode;
use muster_runtime::identity::{ConnectInfo, Fingerprint, Peer, Role};
use tonic::metadata::MetadataMap;

const EXPIRES_MS: u64 = 1_000_000;

pub fn connection(role: Option<Role>) -> ConnectInfo {
    let peer = role.map(|role| Peer {
        cluster: "dev".into(),
        role,
        name: format!("the-{role}"),
        fingerprint: Fingerprint::of(b"x"),
        not_after_ms: EXPIRES_MS,
    });
    ConnectInfo { peer_addr: "127.0.0.1:1".parse().unwrap(), peer }
}

fn metadata(claims: &[&str]) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for claim in claims {
        metadata.append(ON_BEHALF_OF, claim.parse().unwrap());
    }
    metadata
}

fn code(call: &str, role: Option<Role>, claims: &[&str]) -> Option<ErrorCode> {
    check(call, Some(&connection(role)), &metadata(claims), 1).err().map(|error| error.code)
}

#[test]
fn every_call_is_open_to_its_roles_and_to_no_other() {
    const FOR_ADMINS: [&str; 8] = [
        "NodeAdmin",
        "NodeToken",
        "Configure",
        "ChangeMembers",
        "TransferLeader",
        "Backup",
        "MakeReservation",
        "EndReservation",
    ];
    for (call, _) in CALLS {
        let for_admins = FOR_ADMINS.contains(call);
        let forbidden = Some(ErrorCode::Forbidden);
        assert_eq!(code(call, None, &[]), Some(ErrorCode::NotLoggedIn), "{call} without a certificate");
        assert_eq!(code(call, Some(Role::Agent), &[]), forbidden, "{call} by an agent");
        assert_eq!(code(call, Some(Role::Server), &[]), forbidden, "{call} by a server for itself");
        assert_eq!(code(call, Some(Role::Admin), &[]), None, "{call} by an admin");
        assert_eq!(code(call, Some(Role::User), &[]), forbidden.filter(|_| for_admins), "{call} by a user");
        let passed_on = |claim| code(call, Some(Role::Server), &[claim]);
        assert_eq!(passed_on("admin/root"), None, "{call} passed on for an admin");
        assert_eq!(passed_on("user/alice"), forbidden.filter(|_| for_admins), "{call} passed on for a user");
        assert_eq!(passed_on("agent/n1"), forbidden, "{call} passed on for an agent");
        for role in [Role::User, Role::Admin, Role::Agent] {
            assert_eq!(code(call, Some(role), &["admin/root"]), forbidden, "{call} by a {role} that claims to be root");
        }
    }
}

#[test]
fn what_is_not_listed_is_refused() {
    assert_eq!(code("Format", Some(Role::Admin), &[]), Some(ErrorCode::Forbidden));
}

#[test]
fn a_claim_that_names_nobody_is_refused() {
    for claims in [vec!["root"], vec!["admin/"], vec!["admin/a b"], vec!["king/x"], vec!["user/a", "user/b"]] {
        assert_eq!(code("Submit", Some(Role::Server), &claims), Some(ErrorCode::Forbidden), "{claims:?}");
    }
}

#[test]
fn a_certificate_that_ran_out_on_an_open_connection_is_refused() {
    let error = check("Version", Some(&connection(Some(Role::User))), &MetadataMap::new(), EXPIRES_MS + 1);
    assert_eq!(error.unwrap_err().code, ErrorCode::CertificateExpired);
}

#[test]
fn jobs_are_changed_by_their_owner_or_an_admin() {
    let caller = |name: &str, role| Caller { name: name.into(), role, forwarded: false };
    let alice = Principal("alice".into());
    assert!(caller("alice", Role::User).check_owner(&alice, "job 1").is_ok());
    assert!(caller("root", Role::Admin).check_owner(&alice, "job 1").is_ok());
    let error = caller("bob", Role::User).check_owner(&alice, "job 1").unwrap_err();
    assert_eq!((error.code, error.exit_code), (ErrorCode::Forbidden, 4));
    assert!(error.hint.is_some());
}

/// The table above is worth nothing for a call that does not ask it.
#[test]
fn every_call_asks_who_is_calling() {
    let source = include_str!("../mod.rs");
    let (_, service) = source.split_once("impl Muster for Gateway").unwrap();
    let methods = service.matches("async fn ").count();
    assert_eq!(methods, CALLS.len());
    for (call, _) in CALLS {
        assert!(service.contains(&format!("\"{call}\"")), "{call} is not checked");
    }
}
