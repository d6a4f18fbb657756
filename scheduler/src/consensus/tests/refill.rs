//! A server whose history has a hole gets it from the others.

use std::sync::Arc;

use super::cluster::{Cluster, within};
use crate::consensus::RefillError;
use crate::history::{HistoryStore, Record};

fn record(index: u64, bytes: usize) -> Record {
    Record { ordinal: 0, kind: 1, job: Some(index % 5), bytes: vec![index as u8; bytes].into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_in_history_is_filled_from_the_others() {
    let cluster = Cluster::start(3, |_| {}).await;
    let dir = tempfile::tempdir().unwrap();
    let open = |id: u64| Arc::new(HistoryStore::open(&dir.path().join(id.to_string())).unwrap());
    let (whole, holed) = (open(1), open(2));
    for index in 1..=200 {
        // Large enough that one reply does not carry them all.
        whole.append(index, &[record(index, 100_000)]).unwrap();
    }
    holed.note_restore(150).unwrap();
    let nowhere = cluster.handle(2).refill_history(&holed).await;
    assert!(matches!(nowhere, Err(RefillError::Nowhere { from: 0, to: 150, .. })), "{nowhere:?}");
    cluster.handle(1).serve_history(whole.clone());
    let fetched = within("the refill", cluster.handle(2).refill_history(&holed)).await.unwrap();
    assert_eq!(fetched, 150);
    assert!(holed.gaps().unwrap().is_empty());
    let mut from = 0;
    let mut seen = 0;
    loop {
        let page = holed.read_range(from, 1000).unwrap();
        let Some((last, _)) = page.last() else { break };
        from = last + 1;
        for (index, got) in &page {
            seen += 1;
            assert_eq!((*index, got), (seen, &record(*index, 100_000)));
        }
    }
    assert_eq!(seen, 150);
    assert_eq!(holed.job_records(3).unwrap().len(), 30);
}
