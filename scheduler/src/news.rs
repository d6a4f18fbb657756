//! Wakes the sessions that a change of State concerns, and no others: what one start costs must not grow with the cluster.

use crate::sessions::SessionsHandle;
use muster_engine::State;
use muster_engine::desired::{Touched, touched};
use muster_runtime::shutdown::Shutdown;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The view from which sessions tell their agents. Everybody whom it concerns has been woken for it, or is woken at once.
pub(crate) struct News {
    view: Mutex<Arc<State>>,
}

impl News {
    pub(crate) fn from(view: Arc<State>) -> Self {
        Self { view: Mutex::new(view) }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<State>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn view(&self) -> Arc<State> {
        self.lock().clone()
    }

    /// Goes on to `view`, unless a newer one is there already. Who has entered before is woken; who enters later reads it first.
    pub(crate) fn go_on_to(&self, view: Arc<State>, sessions: &SessionsHandle) {
        let mut told = self.lock();
        if view.applied_index() <= told.applied_index() {
            return;
        }
        let concerned = (sessions.count() > 0).then(|| touched(&told, &view));
        let older = std::mem::replace(&mut *told, view);
        drop(told);
        match concerned {
            Some(Touched::All) => sessions.wake_all(),
            Some(Touched::Nodes(nodes)) => sessions.wake(&nodes),
            None => {}
        }
        // What only the older view held is freed when nobody waits for it.
        drop(older);
    }
}

/// Follows what is applied here.
pub(crate) async fn follow(sessions: SessionsHandle, shutdown: Shutdown) -> Result<(), io::Error> {
    let mut views = sessions.services.consensus.views();
    loop {
        let view = views.borrow_and_update().view.clone();
        sessions.go_on_to(view);
        if !matches!(shutdown.unless(views.changed()).await, Some(Ok(()))) {
            return Ok(());
        }
    }
}
