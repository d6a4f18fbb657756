//! One real server in this process, and identities of every kind for it.

use muster_proto::client::muster_client::MusterClient;
use muster_proto::client::{ClusterStatusRequest, VersionRequest};
use muster_runtime::clock::{Clock, SystemClock};
use muster_runtime::config;
use muster_runtime::identity::{
    Authority, Credentials, DAY_MS, Expect, Identity, Name, Role, Sans, connect, connect_anonymous,
};
use muster_runtime::shutdown::Shutdown;
use muster_scheduler::config::ServerConfig;
use muster_tests::cluster::free_addresses;
use std::time::{Duration, Instant};
use tonic::transport::Channel;

pub const CLUSTER: &str = "testing";
/// Nothing here takes longer unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Server {
    pub address: String,
    pub authority: Authority,
    _folder: tempfile::TempDir,
    shutdown: Shutdown,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

pub fn now_ms() -> u64 {
    SystemClock.wall_ms()
}

impl Server {
    /// Leads a cluster of one.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temp folder");
        let address = free_addresses(1).remove(0);
        let authority = Authority::create(CLUSTER, now_ms()).expect("a CA");
        let identity = folder.path().join("identity");
        issue(&authority, Role::Server, "s1").save(&identity).expect("saved");
        authority.save(&identity).expect("saved");
        let file = format!(
            "id = 1\nname = \"s1\"\ncluster_id = \"{CLUSTER}\"\ndir = {:?}\nidentity = {:?}\nlisten = \"{address}\"\n\
             [[members]]\nid = 1\nname = \"s1\"\naddress = \"{address}\"\n",
            folder.path().join("data"),
            identity,
        );
        let config: ServerConfig = config::parse("server.toml", &file).expect("settings");
        let shutdown = Shutdown::new();
        tokio::spawn(muster_scheduler::server::run(config, shutdown.clone()));
        let server = Self { address, authority, _folder: folder, shutdown };
        server.leads().await;
        server
    }

    async fn leads(&self) {
        let begun = Instant::now();
        loop {
            let asked = self.admin().cluster_status(ClusterStatusRequest { local: true }).await;
            if asked.is_ok_and(|status| status.get_ref().leader_id == 1) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the server does not lead");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn identity(&self, role: Role, name: &str) -> Identity {
        issue(&self.authority, role, name)
    }

    pub fn channel(&self, identity: Identity) -> Channel {
        connect(&self.address, &Credentials::new(identity), Expect::server()).expect("an address")
    }

    pub fn nobody(&self) -> Channel {
        connect_anonymous(&self.address, self.authority.ca_pem(), Expect::server()).expect("an address")
    }

    pub fn admin(&self) -> MusterClient<Channel> {
        MusterClient::new(self.channel(self.identity(Role::Admin, "root")))
    }

    pub fn user(&self, name: &str) -> MusterClient<Channel> {
        MusterClient::new(self.channel(self.identity(Role::User, name))).max_decoding_message_size(64 << 20)
    }

    /// Somebody who keeps the rules is answered.
    pub async fn serves(&self, after: &str) {
        let mut api = self.user("alice");
        let asked = tokio::time::timeout(PATIENCE, api.version(VersionRequest::default()));
        let answer = asked.await.unwrap_or_else(|_| panic!("no answer after {after}"));
        answer.unwrap_or_else(|status| panic!("refused after {after}: {status}"));
    }
}

pub fn issue(authority: &Authority, role: Role, name: &str) -> Identity {
    let name = Name::new(CLUSTER, role, name).expect("a name");
    authority.issue(&name, &Sans::default(), now_ms(), DAY_MS).expect("issued")
}

/// Good for a day, which was over a day ago.
pub fn expired(authority: &Authority, role: Role, name: &str) -> Identity {
    let name = Name::new(CLUSTER, role, name).expect("a name");
    authority.issue(&name, &Sans::default(), now_ms() - 2 * DAY_MS, DAY_MS).expect("issued")
}
