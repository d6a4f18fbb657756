//! Every route, a row each. The OpenAPI document, the checks of requests and the dispatch all read this table.

use super::route::{Answer, Fixed, Method, Route, Shape};
use Fixed::{Flag, Text};
use Method::{Get, Post, Put};
use muster_proto::client::muster_server::Muster;
use muster_proto::document;

/// Calls without a route, and why.
pub const GRPC_ONLY: &[(&str, &str)] = &[(
    "Backup",
    "a backup is bytes that prove themselves whole; `muster cluster backup` reads them back before it calls them a backup",
)];

/// Answers with the document that the command line prints for the same reply.
macro_rules! answer {
    ($method:ident, $schema:literal) => {
        answer!($method, $schema, Shape::Whole, |reply, _| document::document($schema, reply))
    };
    ($method:ident, $schema:literal, $shape:expr, |$reply:ident, $asked:tt| $document:expr) => {
        Answer::Document {
            schema: $schema,
            shape: $shape,
            run: |gateway, asked| {
                Box::pin(async move {
                    let $asked = (asked.flag("dry_run"), asked.text("kind"));
                    let answered = gateway.$method(asked.request()?).await?.into_inner();
                    let $reply = &answered;
                    Ok($document)
                })
            },
        }
    };
}

const fn row(method: Method, path: &'static str, call: &'static str, answer: Answer) -> Route {
    Route { method, path, call, fixed: &[], answer }
}

/// A row whose path decides a field.
const fn fixed(
    method: Method,
    path: &'static str,
    call: &'static str,
    fixed: &'static [(&'static str, Fixed)],
    answer: Answer,
) -> Route {
    Route { method, path, call, fixed, answer }
}

/// A change of a node, by its action.
macro_rules! node_change {
    ($path:literal, $action:literal) => {
        fixed(Post, $path, "NodeAdmin", &[("action", Text($action))], answer!(node_admin, "muster.node_change/1"))
    };
}

/// A change of the set of servers, by its action.
macro_rules! members {
    ($path:literal, $action:literal) => {
        fixed(Post, $path, "ChangeMembers", &[("action", Text($action))], answer!(change_members, "muster.members/1"))
    };
}

macro_rules! held {
    ($path:literal, $hold:literal) => {
        fixed(
            Post,
            $path,
            "Hold",
            &[("hold", Flag($hold))],
            answer!(hold, "muster.held/1", Shape::Listed, |reply, _| document::held(std::slice::from_ref(reply))),
        )
    };
}

macro_rules! submitted {
    ($method:ident) => {
        answer!($method, "muster.submitted/1", Shape::Submitted, |reply, asked| document::submitted(reply, asked.0))
    };
}

macro_rules! configuration {
    () => {
        answer!(configure, "muster.configuration/1", Shape::Configuration, |reply, asked| {
            document::configuration(&asked.1, reply)
        })
    };
}

#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    row(Get, "/v1/jobs", "ListJobs", answer!(list_jobs, "muster.jobs/1")),
    row(Post, "/v1/jobs", "Submit", submitted!(submit)),
    row(Get, "/v1/jobs/{job}", "ShowJob", answer!(show_job, "muster.job/1")),
    row(Get, "/v1/jobs/{job}/why", "Why", answer!(why, "muster.why/1")),
    row(Get, "/v1/why", "WhyAll", answer!(why_all, "muster.why_all/1")),
    row(Get, "/v1/jobs/{job}/wait", "Wait", answer!(wait, "muster.wait/1")),
    row(Get, "/v1/jobs/{job}/logs", "Logs", Answer::Logs),
    row(Post, "/v1/jobs/{job}/cancel", "Cancel", answer!(cancel, "muster.cancelled/1", Shape::Listed, |reply, _| document::cancelled(std::slice::from_ref(reply)))),
    held!("/v1/jobs/{job}/hold", true),
    held!("/v1/jobs/{job}/release", false),
    row(Post, "/v1/jobs/{job}/retry", "Retry", submitted!(retry)),
    row(Get, "/v1/events", "Events", Answer::Events),
    row(Get, "/v1/nodes", "ListNodes", answer!(list_nodes, "muster.nodes/1")),
    row(Get, "/v1/nodes/{name}", "ShowNode", answer!(show_node, "muster.node/1")),
    node_change!("/v1/nodes/{node}/cordon", "cordon"),
    node_change!("/v1/nodes/{node}/uncordon", "uncordon"),
    node_change!("/v1/nodes/{node}/drain", "drain"),
    node_change!("/v1/nodes/{node}/undrain", "undrain"),
    node_change!("/v1/nodes/{node}/state-released", "state-released"),
    node_change!("/v1/nodes/{node}/end-quarantine", "end-quarantine"),
    node_change!("/v1/nodes/{node}/remove", "remove"),
    row(Post, "/v1/node-tokens", "NodeToken", answer!(node_token, "muster.node_token/1", Shape::NodeToken, |reply, _| document::node_token(reply))),
    row(Get, "/v1/cluster", "ClusterStatus", answer!(cluster_status, "muster.cluster/1")),
    members!("/v1/cluster/members/{server}/add", "add"),
    members!("/v1/cluster/members/{server}/promote", "promote"),
    members!("/v1/cluster/members/{server}/remove", "remove"),
    row(Post, "/v1/cluster/transfer", "TransferLeader", answer!(transfer_leader, "muster.transferred/1")),
    fixed(Get, "/v1/configuration/{kind}", "Configure", &[("request_id", Text("read")), ("json", Text("")), ("plan_only", Flag(true))], configuration!()),
    row(Put, "/v1/configuration/{kind}", "Configure", configuration!()),
    row(Post, "/v1/plans", "Plan", answer!(plan, "muster.plan/1")),
    row(Get, "/v1/queues", "ListQueues", answer!(list_queues, "muster.queues/1")),
    row(Get, "/v1/queues/{name}", "ShowQueue", answer!(show_queue, "muster.queue/1")),
    row(Post, "/v1/jobs/{job}/edit", "EditJob", answer!(edit_job, "muster.edited/1")),
    row(Get, "/v1/reservations", "ListReservations", answer!(list_reservations, "muster.reservations/1")),
    row(Post, "/v1/reservations", "MakeReservation", answer!(make_reservation, "muster.reservation_change/1")),
    row(Get, "/v1/reservations/{name}", "ShowReservation", answer!(show_reservation, "muster.reservation/1")),
    row(Post, "/v1/reservations/{name}/delete", "EndReservation", answer!(end_reservation, "muster.reservation_ended/1")),
    row(Get, "/v1/policy", "ShowPolicy", answer!(show_policy, "muster.policy/1")),
    row(Get, "/v1/version", "Version", answer!(version, "muster.version/1", Shape::Version, |reply, _| document::version(None, Some(reply)))),
];

#[cfg(test)]
mod tests {
    use super::super::route::placeholder;
    use super::super::schema::Api;
    use super::*;

    #[test]
    fn every_call_has_a_route_or_says_why_not() {
        let api = Api::new();
        for call in api.calls() {
            let routed = ROUTES.iter().any(|route| route.call == call);
            let excused = GRPC_ONLY.iter().any(|(name, why)| *name == call && !why.is_empty());
            assert!(routed != excused, "{call}: give it a row in ROUTES, or a line with the reason in GRPC_ONLY");
        }
        for (call, _) in GRPC_ONLY {
            assert!(api.calls().any(|known| known == *call), "there is no call {call} any more");
        }
    }

    #[test]
    fn every_row_names_a_call_and_fields_that_exist() {
        let api = Api::new();
        for route in ROUTES {
            let input = api.input(route.call);
            let named = route.path.split('/').filter_map(placeholder);
            for field in named.chain(route.fixed.iter().map(|(field, _)| *field)) {
                assert!(input.get_field_by_name(field).is_some(), "{}: {} has no `{field}`", route.path, route.call);
            }
        }
    }
}
