//! The stream of events: from history first, then as they apply. Nothing is left out in between.

mod last;

use super::arrays::Arrays;
use super::ended::Depth;
use super::jobs::locate;
use super::limits::Ticket;
use super::render::event::{KINDS, kind, nodes_of, render};
use super::roles::Caller;
use super::{Inner, Streamed, errors};
use crate::consensus::ReadError;
use crate::records::{self, Recorded, job_of};
use crate::watch::AppliedEvents;
use last::{Found, Search, look_back};
use muster_common::{JobId, Name, NodeId};
use muster_engine::{Event, State};
use muster_proto::client as pb;
use muster_proto::convert::error::ErrorInfo;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

const LIMIT: u32 = 1000;
const LIMIT_MAX: u32 = 100_000;
/// Records read from history in one go.
const PAGE: usize = 2_000;
/// Events on their way to one reader.
const CHANNEL: usize = 256;

/// What a reader wants to see.
struct Filter {
    kinds: Vec<String>,
    job: Option<(JobId, Option<u32>)>,
    node: Option<(Name, Option<NodeId>)>,
}

impl Filter {
    /// `job` is the id of the job that the request names.
    fn read(request: &pb::EventsRequest, job: Option<JobId>, state: &State) -> Result<Self, ErrorInfo> {
        if let Some(word) = request.kinds.iter().find(|word| !KINDS.contains(&word.as_str())) {
            let hint = format!("there is: {}", KINDS.join(", "));
            return Err(errors::usage(format!("`{word}` is no kind of event")).hint(hint));
        }
        if request.limit > LIMIT_MAX {
            return Err(errors::usage(format!("at most {LIMIT_MAX} events are told at once")).hint("use `from_index`"));
        }
        let job = job.map(|id| (id, request.job.as_ref().and_then(|reference| reference.ordinal)));
        let node = match request.node.as_str() {
            "" => None,
            text => {
                let name =
                    Name::new(text).map_err(|error| errors::usage(format!("that is no node's name: {error}")))?;
                let id = state.node_named(&name).map(|node| node.id);
                Some((name, id))
            }
        };
        Ok(Self { kinds: request.kinds.clone(), job, node })
    }

    fn takes(&self, event: &Event) -> bool {
        let of_node = |(name, id): &(Name, Option<NodeId>)| match event {
            Event::NodeRegistered { name: registered, .. } => registered == name,
            Event::TokenUsed { node } => node == name,
            Event::TokenIssued { node, .. } => node.as_ref() == Some(name),
            _ => id.is_some_and(|id| nodes_of(event).contains(&id)),
        };
        let of_job = |(job, ordinal): &(JobId, Option<u32>)| {
            job_of(event) == Some(*job)
                && ordinal.is_none_or(|ordinal| gang_ordinal(event).is_none_or(|o| o == ordinal))
        };
        (self.kinds.is_empty() || self.kinds.iter().any(|word| word == kind(event)))
            && self.job.as_ref().is_none_or(of_job)
            && self.node.as_ref().is_none_or(of_node)
    }
}

/// The element an event is about; none for what is about the whole job.
fn gang_ordinal(event: &Event) -> Option<u32> {
    match event {
        Event::GangPlaced { gang, .. }
        | Event::GangStarted { gang, .. }
        | Event::RankExited { gang, .. }
        | Event::GangStopping { gang, .. }
        | Event::AttemptEnded { gang, .. }
        | Event::GangQueued { gang, .. }
        | Event::GangEnded { gang, .. }
        | Event::Reserved { gang, .. }
        | Event::NodesRequested { gang, .. }
        | Event::Unreserved { gang } => Some(gang.ordinal),
        Event::JobCancelled { ordinal, .. } => *ordinal,
        _ => None,
    }
}

type Sender = mpsc::Sender<Result<pb::Event, Status>>;

pub(super) async fn events(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::EventsRequest,
    ticket: Ticket,
) -> Result<Streamed<pb::Event>, ErrorInfo> {
    // Subscribed before history is read, so that nothing falls in between.
    let live = inner.ctx.watch.subscribe();
    let state = inner.fresh().await?;
    let job = match &request.job {
        Some(reference) => Some(locate(inner, caller, &state, Some(reference)).await?),
        None => None,
    };
    let filter = Filter::read(&request, job, &state)?;
    let (sender, receiver) = mpsc::channel(CHANNEL);
    let arrays = Arrays::default();
    let reader = Reader { inner: inner.clone(), filter, arrays, sender, live, next: 0 };
    tokio::spawn(async move {
        let _ticket = ticket;
        let sender = reader.sender.clone();
        if let Err(error) = reader.run(request, state.applied_index()).await {
            // A reader that is gone needs no answer.
            let _ = sender.send(Err(error.into())).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

struct Reader {
    inner: Arc<Inner>,
    filter: Filter,
    arrays: Arrays,
    sender: Sender,
    live: tokio::sync::broadcast::Receiver<Arc<AppliedEvents>>,
    /// The first log index not told yet.
    next: u64,
}

/// The reader is gone, or has all it wanted.
struct Done;

impl Reader {
    async fn run(mut self, request: pb::EventsRequest, applied: u64) -> Result<(), ErrorInfo> {
        let limit = if request.limit == 0 { LIMIT } else { request.limit } as usize;
        match (request.from_index, request.follow) {
            (None, false) => return self.last(limit, applied).await,
            (None, true) => self.next = applied + 1,
            (Some(from), follow) => {
                self.next = from;
                let left = if follow { usize::MAX } else { limit };
                if self.tell_history(applied, left).await?.is_err() || !follow {
                    return Ok(());
                }
            }
        }
        self.follow().await
    }

    async fn tell(&self, state: &State, recorded: &Recorded) -> Result<bool, Done> {
        if !self.filter.takes(&recorded.event) {
            return Ok(false);
        }
        self.sender.send(Ok(render(state, recorded, self.arrays.has(&recorded.event)))).await.map_err(|_| Done)?;
        Ok(true)
    }

    /// Tells everything recorded from `next` through `upto`, at most `left` events of it.
    async fn tell_history(&mut self, upto: u64, mut left: usize) -> Result<Result<(), Done>, ErrorInfo> {
        while self.next <= upto {
            // Of a filter that nothing matches nothing is sent, and so nobody's leaving is noticed.
            if self.sender.is_closed() {
                return Ok(Err(Done));
            }
            let from = self.next;
            let page = self.inner.reading(move |inner| {
                errors::check_history(&inner.ctx.history, from, upto)?;
                records::range(&inner.ctx.history, from, PAGE).map_err(errors::history)
            });
            let page = page.await?;
            let state = self.inner.ctx.view();
            let Some(last) = page.last().map(|recorded| recorded.index) else { break };
            let page = self.arrays.meet(&self.inner, &state, page).await?;
            for recorded in page.iter().filter(|recorded| recorded.index <= upto) {
                match self.tell(&state, recorded).await {
                    Ok(told) => left -= usize::from(told),
                    Err(done) => return Ok(Err(done)),
                }
                if left == 0 {
                    return Ok(Err(Done));
                }
            }
            // A page may reach beyond `upto`; what is there comes by itself.
            self.next = last.min(upto) + 1;
        }
        self.next = self.next.max(upto + 1);
        Ok(Ok(()))
    }

    /// The last `limit` events that match.
    async fn last(self, limit: usize, applied: u64) -> Result<(), ErrorInfo> {
        let Self { inner, filter, mut arrays, sender, .. } = self;
        let search = Search::new(filter, limit, applied, Depth::LIST);
        let Some(Found { events, cut }) = look_back(&inner, &sender, search).await? else { return Ok(()) };
        let state = inner.ctx.view();
        let events = arrays.meet(&inner, &state, events).await?;
        for recorded in &events {
            let event = render(&state, recorded, arrays.has(&recorded.event));
            if sender.send(Ok(event)).await.is_err() {
                return Ok(());
            }
        }
        cut.map_or(Ok(()), Err)
    }

    async fn follow(&mut self) -> Result<(), ErrorInfo> {
        loop {
            let applied = tokio::select! {
                () = self.sender.closed() => return Ok(()),
                applied = self.live.recv() => applied,
            };
            match applied {
                Ok(applied) if applied.index < self.next => {}
                Ok(jumped) if jumped.events.is_empty() => {
                    if self.tell_history(jumped.index, usize::MAX).await?.is_err() {
                        return Ok(());
                    }
                }
                Ok(applied) => {
                    let state = self.inner.ctx.view();
                    if self.tell_all(&state, &applied).await.is_err() {
                        return Ok(());
                    }
                    self.next = applied.index + 1;
                }
                // Too slow: what was missed is in history.
                Err(RecvError::Lagged(_)) => {
                    let upto = self.inner.ctx.consensus.applied_index();
                    if self.tell_history(upto, usize::MAX).await?.is_err() {
                        return Ok(());
                    }
                }
                Err(RecvError::Closed) => return Err(errors::not_read(ReadError::ShuttingDown)),
            }
        }
    }

    async fn tell_all(&mut self, state: &State, applied: &AppliedEvents) -> Result<(), Done> {
        let recorded = |(ordinal, event): (u32, &Event)| Recorded {
            index: applied.index,
            ordinal,
            at: applied.at,
            event: event.clone(),
        };
        let events: Vec<Recorded> = (0..).zip(&applied.events).map(recorded).collect();
        // An entry that ends a job tells itself what it was.
        self.arrays.learn(state, &events);
        for recorded in &events {
            self.tell(state, recorded).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::READERS_MAX;
    use crate::gateway::tests::server::{Server, within};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn history_is_told_no_further_to_who_has_left() {
        let server = Server::start(0).await;
        let inner = server.gateway.inner.clone();
        // With these no page is ever read.
        let _others = server.gateway.inner.readers.acquire_many(READERS_MAX as u32).await.unwrap();
        let (sender, receiver) = mpsc::channel(CHANNEL);
        drop(receiver);
        let filter = Filter { kinds: vec!["node_silent".into()], job: None, node: None };
        let live = server.ctx.watch.subscribe();
        let mut reader = Reader { inner, filter, arrays: Arrays::default(), sender, live, next: 1 };
        let told = within("an end", reader.tell_history(server.ctx.view().applied_index(), usize::MAX)).await;
        assert!(matches!(told, Ok(Err(Done))), "it went on");
    }
}
