//! This server's own certificate. A server holds the CA's key, so it issues itself another before the one that it shows runs
//! out, and nobody has to look after it.

use muster_runtime::aside;
use muster_runtime::clock::Clock;
use muster_runtime::identity::{Authority, Credentials, Identity, IdentityError, LEAF_VALID_MS};
use muster_runtime::shutdown::Shutdown;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Between two looks: after a clock was put right, a certificate from the wrong time is shown no longer than this.
const LOOK_EVERY_MS: u64 = 60_000;

/// Keeps the certificate of a running server young. Listeners and channels follow the credentials.
pub struct OwnCertificate {
    pub credentials: Credentials,
    pub authority: Arc<Authority>,
    /// Where the identity is kept.
    pub folder: PathBuf,
    pub clock: Arc<dyn Clock>,
}

impl OwnCertificate {
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Infallible> {
        while shutdown.unless(self.look()).await.is_some() {
            if shutdown.unless(self.clock.sleep_ms(LOOK_EVERY_MS)).await.is_none() {
                break;
            }
        }
        Ok(())
    }

    async fn look(&self) {
        let (present, now_ms) = (self.credentials.current(), self.clock.wall_ms());
        if !is_due(&present, &self.authority, now_ms) {
            return;
        }
        let (authority, folder) = (self.authority.clone(), self.folder.clone());
        let renewed = match aside::run(move || renew(&present, &authority, &folder, now_ms)).await {
            Ok(renewed) => {
                renewed.and_then(|identity| self.credentials.replace(identity)).map_err(|error| error.to_string())
            }
            Err(stopped) => Err(stopped.to_string()),
        };
        if let Err(error) = renewed {
            tracing::error!(error, "this server's certificate could not be renewed; it will be tried again");
        }
    }
}

/// The identity to start with: the one that was found, or another when its time is over or will be soon.
///
/// # Errors
/// One that no renewal makes good: signed by another CA, or by a clock that is behind the CA.
pub fn at_start(found: Identity, authority: &Authority, folder: &Path, now_ms: u64) -> Result<Identity, IdentityError> {
    match found.check(now_ms) {
        Ok(()) | Err(IdentityError::Expired { .. } | IdentityError::NotYetValid { .. })
            if is_due(&found, authority, now_ms) =>
        {
            renew(&found, authority, folder, now_ms)
        }
        checked => checked.map(|()| found),
    }
}

/// Less than a third of its life is left, or its time has not come: it was issued while the clock was ahead.
fn is_due(identity: &Identity, authority: &Authority, now_ms: u64) -> bool {
    let (begins_ms, ends_ms) = (identity.not_before_ms(), identity.not_after_ms());
    if now_ms < begins_ms {
        // From before the CA there are no certificates: there the clock is what is wrong.
        return now_ms >= authority.not_before_ms();
    }
    // None outlives its CA: towards that end another one gains nothing.
    let gains = now_ms.saturating_add(LEAF_VALID_MS).min(authority.not_after_ms()) > ends_ms;
    gains && ends_ms.saturating_sub(now_ms) < ends_ms.saturating_sub(begins_ms) / 3
}

/// Issues another one with the same names, and keeps it. Blocks.
fn renew(present: &Identity, authority: &Authority, folder: &Path, now_ms: u64) -> Result<Identity, IdentityError> {
    let identity = authority.issue(present.name(), &present.sans(), now_ms, LEAF_VALID_MS)?;
    if Authority::load(folder, now_ms).is_ok_and(|there| there.ca_pem() != authority.ca_pem()) {
        tracing::info!("this server's certificate was renewed in memory: `ca.crt` is another than at its start");
        return Ok(identity);
    }
    match identity.save(folder) {
        Ok(()) => tracing::info!("this server's certificate was renewed"),
        // It serves as well from memory: the next start issues another.
        Err(error) => tracing::warn!(%error, "this server's certificate was renewed, and could not be written"),
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_runtime::clock::ManualTime;
    use muster_runtime::identity::{DAY_MS, Name, Role, Sans};
    use std::time::Duration;

    const NOW_MS: u64 = 1_800_000_000_000;
    const DEADLINE: Duration = Duration::from_secs(20);

    fn authority() -> Authority {
        Authority::create("c1", NOW_MS).expect("a CA")
    }

    fn issue(authority: &Authority, now_ms: u64) -> Identity {
        let name = Name::new("c1", Role::Server, "s1").expect("a name");
        let sans = Sans { dns: vec!["s1.example".to_owned()], ip: vec!["10.0.0.1".parse().expect("an address")] };
        authority.issue(&name, &sans, now_ms, LEAF_VALID_MS).expect("issued")
    }

    #[test]
    fn a_certificate_is_due_once_less_than_a_third_of_its_life_is_left() {
        let (time, authority) = (ManualTime::new(NOW_MS), authority());
        let clock = time.clock();
        let identity = issue(&authority, NOW_MS);
        let due = || is_due(&identity, &authority, clock.wall_ms());
        assert!(!due(), "when it is new");
        let life_ms = identity.not_after_ms() - identity.not_before_ms();
        time.advance(identity.not_after_ms() - life_ms / 3 - NOW_MS);
        assert!(!due(), "with a third left");
        time.advance(1);
        assert!(due(), "with less");
        time.advance(LEAF_VALID_MS);
        assert!(due(), "after its end");
    }

    #[test]
    fn a_certificate_that_ends_with_its_ca_is_not_renewed_again_and_again() {
        let authority = authority();
        let last = issue(&authority, authority.not_after_ms() - 10 * DAY_MS);
        assert_eq!(last.not_after_ms(), authority.not_after_ms());
        assert!(!is_due(&last, &authority, last.not_after_ms() - 1_000));
    }

    #[test]
    fn a_certificate_from_a_clock_that_was_ahead_is_due_but_a_clock_behind_the_ca_issues_none() {
        let authority = authority();
        let ahead = issue(&authority, NOW_MS + 400 * DAY_MS);
        assert!(is_due(&ahead, &authority, NOW_MS));
        assert!(!is_due(&ahead, &authority, NOW_MS - DAY_MS));
    }

    #[tokio::test]
    async fn a_running_server_renews_its_certificate_under_the_same_names_with_a_new_key() {
        let (time, folder) = (ManualTime::new(NOW_MS), tempfile::tempdir().expect("a temp folder"));
        let authority = Arc::new(authority());
        let old = issue(&authority, NOW_MS);
        let (ends_ms, key) = (old.not_after_ms(), old.key_pem().to_owned());
        old.save(folder.path()).expect("saved");
        let (credentials, shutdown) = (Credentials::new(old), Shutdown::new());
        let own = OwnCertificate {
            credentials: credentials.clone(),
            authority,
            folder: folder.path().to_owned(),
            clock: Arc::new(time.clock()),
        };
        let running = tokio::spawn(own.run(shutdown.clone()));
        // Its first look, at which nothing is due.
        tokio::task::yield_now().await;
        assert_eq!(credentials.current().not_after_ms(), ends_ms);
        time.advance(80 * DAY_MS);
        let renewed = async {
            loop {
                let current = credentials.current();
                if current.not_after_ms() > ends_ms {
                    return current;
                }
                tokio::task::yield_now().await;
            }
        };
        let renewed = tokio::time::timeout(DEADLINE, renewed).await.expect("a new certificate");
        let wanted = issue(&Authority::create("c1", NOW_MS).expect("a CA"), NOW_MS);
        assert_eq!((renewed.name(), renewed.sans()), (wanted.name(), wanted.sans()));
        assert_ne!(renewed.key_pem(), key);
        let kept = Identity::load(folder.path(), ends_ms + 1_000).expect("good when the old one ends");
        assert_eq!(kept.peer(), renewed.peer());
        shutdown.trigger();
        let ended = tokio::time::timeout(DEADLINE, running).await.expect("it stops");
        ended.expect("no panic").expect("no failure");
    }

    #[test]
    fn a_server_starts_although_its_certificate_has_run_out_and_keeps_the_new_one() {
        let (folder, authority) = (tempfile::tempdir().expect("a temp folder"), authority());
        let late_ms = NOW_MS + 200 * DAY_MS;
        issue(&authority, NOW_MS).save(folder.path()).expect("saved");
        let over = Identity::read(folder.path()).expect("sound but old");
        assert!(matches!(over.check(late_ms), Err(IdentityError::Expired { .. })));
        let started = at_start(over, &authority, folder.path(), late_ms).expect("a new one");
        assert_eq!(Identity::load(folder.path(), late_ms).expect("kept").peer(), started.peer());
        let again = Identity::read(folder.path()).expect("sound");
        let again = at_start(again, &authority, folder.path(), late_ms).expect("good");
        assert_eq!(again.peer(), started.peer(), "a good one is left alone");
    }

    #[test]
    fn a_renewed_certificate_that_cannot_be_written_serves_all_the_same() {
        let (folder, authority) = (tempfile::tempdir().expect("a temp folder"), authority());
        let file = folder.path().join("file");
        std::fs::write(&file, "no folder").expect("written");
        let late_ms = NOW_MS + 200 * DAY_MS;
        let started = at_start(issue(&authority, NOW_MS), &authority, &file, late_ms).expect("a new one");
        started.check(late_ms).expect("it is good now");
    }

    #[test]
    fn a_certificate_of_another_ca_stops_the_start() {
        let (folder, authority) = (tempfile::tempdir().expect("a temp folder"), authority());
        issue(&Authority::create("c1", NOW_MS).expect("a CA"), NOW_MS).save(folder.path()).expect("saved");
        authority.save(folder.path()).expect("saved");
        let foreign = Identity::read(folder.path()).expect("certificate and key belong together");
        let refused = at_start(foreign, &authority, folder.path(), NOW_MS);
        assert!(matches!(refused, Err(IdentityError::WrongCa { .. })), "{refused:?}");
    }
}
