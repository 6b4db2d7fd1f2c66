//! Transactions of several writers that want the same rows in different orders: none has to wait for another in a ring.

use std::task::Poll;

use super::*;

#[tokio::test]
async fn writes_that_touch_rows_in_any_order_do_not_meet() {
    const ROWS: u128 = 40;
    let folder = tempfile::tempdir().unwrap();
    let store = open(Home::Postgres, &folder, &Bus::default()).await;
    store
        .write(|tx| (0..ROWS).try_for_each(|id| insert(tx, Uuid::from_u128(id), 0).map(drop)))
        .await
        .unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    // From both ends at once: in two groups they would wait for each other, and one would be done again.
    let order = (0..ROWS).flat_map(|id| [id, ROWS - 1 - id]);
    let writes = order.map(|id| {
        let runs = runs.clone();
        store.write(move |tx| {
            runs.fetch_add(1, Ordering::Relaxed);
            let sql = "UPDATE things SET count = count + 1 FROM pg_sleep(0.002) WHERE id = $1";
            tx.execute(sql, &[Value::Uuid(Uuid::from_u128(id))])
        })
    });
    futures_util::future::try_join_all(writes).await.unwrap();
    assert_eq!(counts(&store).await, [2; ROWS as usize]);
    assert_eq!(runs.load(Ordering::Relaxed), 2 * ROWS as usize);
}

#[tokio::test]
async fn writes_that_make_logs_in_any_order_do_not_meet() {
    const LOGS: usize = 2 * super::writer::GROUP;
    let folder = tempfile::tempdir().unwrap();
    let store = open(Home::Postgres, &folder, &Bus::default()).await;
    let slow = |seconds: &'static str| {
        let sql = format!("SELECT pg_sleep({seconds})");
        store.write(move |tx| tx.find(&sql, &[], |_| Ok(())))
    };
    let runs = Arc::new(AtomicUsize::new(0));
    // While all writers are busy many come, which the first two that are free take in two halves. The second half is about
    // the same logs as the first, from the other end.
    let busy = ["0.2", "0.2", "0.5", "0.5"].map(slow);
    let half = LOGS / 2;
    let writes = (0..half).chain((0..half).rev()).map(|n| {
        let (runs, log) = (runs.clone(), Topic::user(&format!("user-{n}").parse().unwrap()));
        Box::pin(store.write_in(log.clone(), move |tx| {
            runs.fetch_add(1, Ordering::Relaxed);
            tx.append(&log, "x", "{}").map(drop)
        }))
    });
    let mut writes: Vec<_> = writes.collect();
    // Joined, or when tokio makes a pause, they would be queued in an order of their own.
    let in_order = tokio::task::unconstrained(std::future::poll_fn(|context| {
        let is_queued = writes.iter_mut().all(|write| write.as_mut().poll(context).is_pending());
        Poll::Ready(is_queued)
    }));
    let (busy, is_queued) = tokio::join!(futures_util::future::try_join_all(busy), in_order);
    assert!(busy.is_ok() && is_queued);
    futures_util::future::try_join_all(writes).await.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), LOGS);
}
