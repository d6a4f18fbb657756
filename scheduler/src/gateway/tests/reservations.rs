//! Advance reservations on one real server: made, tried, seen and ended, and what is wrong said with its remedy.

use super::server::{Server, within};
use muster_proto::client as pb;
use muster_proto::client::muster_server::Muster;
use muster_proto::convert::error::{ErrorCode, ErrorInfo, decode};
use muster_runtime::identity::Role;

/// One of node `n1`, for nobody, now and for an hour.
fn asked(name: &str) -> pb::MakeReservationRequest {
    pb::MakeReservationRequest {
        request_id: format!("make-{name}"),
        name: name.into(),
        duration_ms: Some(3_600_000),
        nodes: vec!["n1".into()],
        ..pb::MakeReservationRequest::default()
    }
}

impl Server {
    async fn made(&self, request: pb::MakeReservationRequest) -> Result<pb::MakeReservationReply, ErrorInfo> {
        let call = self.gateway.make_reservation(Server::call(Role::Admin, request));
        let reply = within("a reservation", call).await;
        reply.map(tonic::Response::into_inner).map_err(|status| decode(&status).expect("every error says what it is"))
    }

    async fn reserved(&self) -> Vec<pb::Reservation> {
        let call = self.gateway.list_reservations(Server::call(Role::User, pb::ListReservationsRequest {}));
        within("a list", call).await.unwrap().into_inner().reservations
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_is_tried_made_once_and_ended() {
    let server = Server::start(1).await;
    let tried = server.made(pb::MakeReservationRequest { plan_only: true, ..asked("firmware") }).await.unwrap();
    assert!(tried.changed && server.reserved().await.is_empty());
    let request = pb::MakeReservationRequest { reason: "switches".into(), ..asked("firmware") };
    let before_ms = server.ctx.proposer.now().0;
    let made = server.made(request).await.unwrap().reservation.unwrap();
    let after_ms = server.ctx.proposer.now().0;
    assert_eq!((made.state.as_str(), made.holders.as_str(), &made.nodes[..]), ("ACTIVE", "nobody", &["n1".into()][..]));
    // It ends an hour after it was asked for, and begins when it is committed, a moment later.
    let (asked_ms, start_ms) = (made.end_at_ms - 3_600_000, made.start_at_ms);
    assert!(before_ms <= asked_ms && asked_ms <= start_ms && start_ms <= after_ms, "{before_ms} {made:?} {after_ms}");
    // The end that was asked for before is another by now; told as a moment it is the same.
    let again = pb::MakeReservationRequest { duration_ms: None, end_at_ms: Some(made.end_at_ms), ..asked("firmware") };
    let again = pb::MakeReservationRequest { reason: "switches".into(), ..again };
    assert!(!server.made(again).await.unwrap().changed);
    let [listed] = &server.reserved().await[..] else { panic!("one is listed") };
    assert_eq!((listed.name.as_str(), listed.reason.as_str(), listed.nodes_total), ("firmware", "switches", 1));
    let other = server.made(asked("other")).await.unwrap_err();
    assert_eq!(
        (other.code, other.message.as_str()),
        (ErrorCode::Conflict, "node n1 is in reservation `firmware` then")
    );

    let end = |name: &str| {
        let request = pb::EndReservationRequest { request_id: "end".into(), name: name.into() };
        server.gateway.end_reservation(Server::call(Role::Admin, request))
    };
    let wrong = decode(&within("an end", end("firmwear")).await.unwrap_err()).unwrap();
    assert_eq!(wrong.code, ErrorCode::ReservationNotFound);
    assert_eq!(wrong.message, "there is no reservation `firmwear`; did you mean `firmware`?");
    within("an end", end("firmware")).await.unwrap();
    assert!(server.reserved().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_reservation_is_said() {
    let server = Server::start(1).await;
    let without = pb::MakeReservationRequest { nodes: Vec::new(), ..asked("w") };
    for (request, code, text) in [
        (without.clone(), ErrorCode::Usage, "a reservation needs nodes, said in one way"),
        (
            pb::MakeReservationRequest { all_nodes: true, ..asked("w") },
            ErrorCode::Usage,
            "a reservation needs nodes, said in one way",
        ),
        (
            pb::MakeReservationRequest { within: "leaf".into(), ..asked("w") },
            ErrorCode::Usage,
            "a model and a level are for so many nodes of a kind",
        ),
        (
            pb::MakeReservationRequest { duration_ms: None, ..asked("w") },
            ErrorCode::Usage,
            "a reservation needs an end",
        ),
        (
            pb::MakeReservationRequest { end_at_ms: Some(1), ..asked("w") },
            ErrorCode::Usage,
            "an end and a duration are given",
        ),
        (
            pb::MakeReservationRequest { end_at_ms: Some(1), duration_ms: None, ..asked("w") },
            ErrorCode::SpecValue,
            "end: the reservation would end before it starts; give a later end, or a duration",
        ),
        (
            pb::MakeReservationRequest { start_at_ms: Some(1), ..asked("w") },
            ErrorCode::SpecValue,
            "end: that moment is over; give a later one",
        ),
        (
            pb::MakeReservationRequest { account: "a".into(), jobs: vec![7], ..asked("w") },
            ErrorCode::Usage,
            "a reservation is for an account or for jobs, not for both",
        ),
        (
            pb::MakeReservationRequest { nodes: vec!["n2".into()], ..asked("w") },
            ErrorCode::SpecValue,
            "nodes: there is no node `n2`; did you mean `n1`?",
        ),
        (
            pb::MakeReservationRequest { domain: "leaf-x".into(), ..without },
            ErrorCode::SpecValue,
            "domain: no node is in a domain `leaf-x`; did you mean `leaf-a`?",
        ),
        (pb::MakeReservationRequest { jobs: vec![7], ..asked("w") }, ErrorCode::JobNotFound, "job 7 is not known"),
    ] {
        let error = server.made(request).await.unwrap_err();
        assert!(error.code == code && error.message.starts_with(text), "{text}: {error:?}");
    }
    assert!(server.reserved().await.is_empty());
}
