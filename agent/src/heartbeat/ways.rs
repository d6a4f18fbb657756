//! Both ways together: fast first, the stream for what stays unanswered.

use super::{Carrier, Ledger, Renewal, Sample, Way};

/// Over the stream, telemetry comes at a lower rate: it shall never delay what matters.
const STREAM_TELEMETRY_MS: u64 = 30_000;

/// The renewals of one session.
pub struct Ways {
    session: u64,
    ledger: Ledger,
    stream: Box<dyn Carrier>,
    quic: Option<Box<dyn Carrier>>,
    told_by_stream_ms: Option<u64>,
}

impl Ways {
    /// The first renewal is due at once.
    pub fn new(
        session: u64,
        now_ms: u64,
        every_ms: u64,
        stream: Box<dyn Carrier>,
        quic: Option<Box<dyn Carrier>>,
    ) -> Self {
        let ledger = Ledger::new(now_ms, every_ms, quic.is_some());
        Self { session, ledger, stream, quic, told_by_stream_ms: None }
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Sends what is due. False when the stream takes nothing any more.
    pub async fn renew(&mut self, now_ms: u64) -> bool {
        let answered = self.ledger.quic_answers();
        while let Some(due) = self.ledger.due(now_ms) {
            let renewal = Renewal { session: self.session, number: due.number };
            if let Some(quic) = self.quic.as_mut().filter(|_| due.by_quic) {
                // What does not leave is missed soon.
                quic.renew(renewal).await;
            }
            if due.by_stream && !self.stream.renew(renewal).await {
                return false;
            }
        }
        if answered && !self.ledger.quic_answers() {
            tracing::info!("a renewal over UDP was not answered in good time; the control stream carries them");
        }
        true
    }

    /// The next answer, by whichever way. Safe to drop.
    pub async fn extended(&mut self) -> (Renewal, Way) {
        let Self { stream, quic, .. } = self;
        match quic {
            None => (stream.extended().await, stream.way()),
            Some(quic) => tokio::select! {
                answer = stream.extended() => (answer, stream.way()),
                answer = quic.extended() => (answer, quic.way()),
            },
        }
    }

    /// When the answered renewal was sent; `None` when that is no news, or it is another session's.
    pub fn answered(&mut self, answer: Renewal, way: Way, now_ms: u64) -> Option<u64> {
        (answer.session == self.session).then(|| self.ledger.answered(answer.number, way, now_ms))?
    }

    /// Passes on how devices are doing. What is lost is followed by newer samples.
    pub async fn tell(&mut self, samples: &[Sample], now_ms: u64) {
        if samples.is_empty() {
            return;
        }
        if let Some(quic) = self.quic.as_mut().filter(|_| self.ledger.quic_answers()) {
            quic.tell(self.session, samples).await;
            return;
        }
        let due = self.told_by_stream_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= STREAM_TELEMETRY_MS);
        if due && self.stream.tell(self.session, samples).await {
            self.told_by_stream_ms = Some(now_ms);
        }
    }
}
