//! Servers that are not who they should be are refused, and a lost log is never voted with.

use muster_proto::peer as pb;
use muster_proto::peer::peer_client::PeerClient;
use muster_proto::peer::refusal::Kind;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::cluster::{Cluster, within};
use crate::consensus::{IdentityError, StartError, refusal_of};

async fn client(addr: &str) -> PeerClient<Channel> {
    PeerClient::new(Endpoint::try_from(format!("http://{addr}")).unwrap().connect().await.unwrap())
}

fn envelope(cluster: &str, source: u64, target: u64, disk: &str) -> Option<pb::Envelope> {
    let (cluster_id, target_disk_id) = (cluster.to_owned(), disk.to_owned());
    Some(pb::Envelope { cluster_id, source_id: source, target_id: target, target_disk_id })
}

fn kind(status: &Status) -> Kind {
    refusal_of(status).unwrap_or_else(|| panic!("no refusal in {status:?}")).kind()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_for_someone_else_is_refused() {
    let cluster = Cluster::start(1, |_| {}).await;
    let disk = cluster.handle(1).status().disk_id;
    let mut client = client(&cluster.addr(1)).await;
    let wrong = [
        (None, Kind::NoEnvelope),
        (envelope("other", 2, 1, &disk), Kind::Cluster),
        (envelope("test", 2, 3, &disk), Kind::Target),
        (envelope("test", 1, 1, &disk), Kind::Self_),
        (envelope("test", 2, 1, "another disk"), Kind::Disk),
    ];
    let term = cluster.handle(1).status().term;
    for (envelope, want) in wrong {
        let vote = Some(pb::Vote { term: term + 9, server_id: 2, committed: true });
        let votes = pb::VoteRequest { envelope: envelope.clone(), vote, last: None, leadership_transfer: true };
        let appends = pb::AppendRequest {
            envelope: envelope.clone(),
            vote,
            previous: None,
            entries: vec![],
            leader_commit: None,
        };
        let head = pb::SnapshotHead { envelope: envelope.clone(), vote, file_bytes: 1 };
        let snapshot = pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Head(head)) };
        let transfer =
            pb::TransferLeaderRequest { envelope: envelope.clone(), from_leader: vote, to_server_id: 1, last: None };
        let mut refused = vec![
            client.pre_vote(votes.clone()).await.unwrap_err(),
            client.vote(votes).await.unwrap_err(),
            client.append(appends.clone()).await.unwrap_err(),
            client.install_snapshot(futures::stream::iter([snapshot])).await.unwrap_err(),
            client.transfer_leader(transfer).await.unwrap_err(),
            client.read_index(pb::ReadIndexRequest { envelope }).await.unwrap_err(),
        ];
        let mut replies = client.append_stream(futures::stream::iter([appends])).await.unwrap().into_inner();
        refused.push(within("the end of the stream", replies.message()).await.unwrap_err());
        for status in refused {
            assert_eq!((status.code(), kind(&status)), (Code::FailedPrecondition, want), "{status}");
        }
    }
    assert_eq!(cluster.handle(1).status().term, term, "a refused call moved the term");
    let index = client.read_index(pb::ReadIndexRequest { envelope: envelope("test", 2, 1, &disk) }).await;
    assert!(matches!(index.unwrap().into_inner().outcome, Some(pb::read_index_reply::Outcome::Index(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_are_no_servers_are_turned_away() {
    let cluster = Cluster::start(1, |_| {}).await;
    let service =
        cluster.handle(1).peer_service(std::sync::Arc::new(|_| Err(Status::permission_denied("not a server"))));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let task = tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let mut client = client(&addr).await;
    let good = || envelope("test", 2, 1, "");
    let votes = pb::VoteRequest { envelope: good(), ..Default::default() };
    let appends = pb::AppendRequest { envelope: good(), ..Default::default() };
    let who = pb::IdentifyRequest { cluster_id: "test".into(), source_id: 2 };
    let transfer = pb::TransferLeaderRequest { envelope: good(), ..Default::default() };
    let refused = [
        client.identify(who).await.unwrap_err(),
        client.pre_vote(votes.clone()).await.unwrap_err(),
        client.vote(votes).await.unwrap_err(),
        client.append(appends.clone()).await.unwrap_err(),
        client.append_stream(futures::stream::iter([appends])).await.unwrap_err(),
        client.install_snapshot(futures::stream::iter([pb::SnapshotPart::default()])).await.unwrap_err(),
        client.transfer_leader(transfer).await.unwrap_err(),
        client.read_index(pb::ReadIndexRequest { envelope: good() }).await.unwrap_err(),
    ];
    assert!(refused.iter().all(|status| status.code() == Code::PermissionDenied), "{refused:?}");
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_voted_and_lost_its_log_does_not_start() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let index = cluster.propose("x").await;
    cluster.agree(index).await;
    let victim = (1..=3).find(|id| cluster.handle(*id).core.net.identity.has_voted()).unwrap();
    cluster.kill(victim).await;
    std::fs::remove_dir_all(cluster.dir(victim).join("log")).unwrap();
    let refused = cluster.boot(victim).await;
    let Err(StartError::Identity(IdentityError::LogLost { server_id, .. })) = &refused else {
        panic!("started: {refused:?}");
    };
    assert_eq!(*server_id, victim);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_its_whole_disk_is_not_listened_to_under_its_old_id() {
    let mut cluster = Cluster::start(3, |_| {}).await;
    let index = cluster.propose("x").await;
    cluster.agree(index).await;
    let leader = cluster.leader().await;
    let victim = (1..=3).find(|id| *id != leader).unwrap();
    cluster.kill(victim).await;
    std::fs::remove_dir_all(cluster.dir(victim)).unwrap();
    cluster.boot(victim).await.unwrap();
    let index = cluster.propose("y").await;
    // The others go on as two of three; the empty one receives nothing, although it runs and is reachable.
    let others: Vec<u64> = (1..=3).filter(|id| *id != victim).collect();
    for id in others {
        let mut applied = cluster.handle(id).applied();
        let there = applied.wait_for(|at| at.is_some_and(|at| at.index >= index));
        within("the others", there).await.unwrap();
    }
    let mut client = client(&cluster.addr(victim)).await;
    let disk = cluster.handle(leader).core.net.identity.disk_of(victim);
    let refused = client.read_index(pb::ReadIndexRequest { envelope: envelope("test", leader, victim, &disk) }).await;
    assert_eq!(kind(&refused.unwrap_err()), Kind::Disk);
    assert_eq!(cluster.handle(victim).status().last_log, None, "the empty server was given a log");
}
