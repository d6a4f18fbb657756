//! A register machine: every payload is appended to a rolling hash, so equal logs give equal hashes.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::consensus::{Machine, MachineError};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub index: u64,
    pub count: u64,
    pub hash: [u8; 32],
    pub last: Vec<u8>,
}

#[derive(Default)]
pub struct Toy {
    state: Arc<State>,
}

impl Machine for Toy {
    type Response = u64;
    type View = Arc<State>;

    fn apply(&mut self, index: u64, _term: u64, payload: &[u8]) -> Result<u64, MachineError> {
        if payload == b"poison" {
            return Err(MachineError("poison".into()));
        }
        let state = Arc::make_mut(&mut self.state);
        let mut hasher = Sha256::new();
        hasher.update(state.hash);
        hasher.update(index.to_be_bytes());
        hasher.update(payload);
        state.hash = hasher.finalize().into();
        state.index = index;
        state.count += 1;
        state.last = payload.to_vec();
        Ok(state.count)
    }

    fn skip(&mut self, index: u64, _term: u64) -> Result<(), MachineError> {
        Arc::make_mut(&mut self.state).index = index;
        Ok(())
    }

    fn view(&self) -> Arc<State> {
        self.state.clone()
    }

    fn encode(view: &Arc<State>) -> Result<Vec<u8>, MachineError> {
        let mut bytes = view.index.to_be_bytes().to_vec();
        bytes.extend(view.count.to_be_bytes());
        bytes.extend(view.hash);
        bytes.extend(&view.last);
        Ok(bytes)
    }

    fn restore(&mut self, _index: u64, bytes: &[u8]) -> Result<(), MachineError> {
        let part = |from: usize, to: usize| bytes.get(from..to).ok_or(MachineError("short".into()));
        let number = |from| Ok(u64::from_be_bytes(part(from, from + 8)?.try_into().unwrap()));
        let state = State {
            index: number(0)?,
            count: number(8)?,
            hash: part(16, 48)?.try_into().unwrap(),
            last: bytes[48..].to_vec(),
        };
        self.state = Arc::new(state);
        Ok(())
    }
}
