//! How slots are freed, and who is seen to hold them.

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::{super::inspect::Open, *};

on_both_stores!(
    a_caller_who_hangs_up_before_the_commit_leaves_no_slot,
    freeing_is_tried_again_and_a_shutdown_flushes,
    inspection_shows_live_streams_and_finds_them,
);

async fn a_caller_who_hangs_up_before_the_commit_leaves_no_slot(home: Home) {
    let fixture = fixture(home);
    let (slots, releaser) = fixture.replica().await;
    let (giver, wanted, taker) = (slots.clone(), fixture.wanted(1), holder("a"));
    let write = fixture.store.write(move |tx| giver.take(tx, &wanted, &taker, OLDEST));
    // Polled once it is queued; then the caller is gone.
    drop(Box::pin(write).as_mut().now_or_never());
    let stop = CancellationToken::new();
    let freeing = async {
        while fixture.take(&slots, fixture.wanted(1), &holder("b")).await.is_err() {}
        stop.cancel();
    };
    tokio::join!(releaser.run(stop.clone()), freeing);
}

async fn freeing_is_tried_again_and_a_shutdown_flushes(home: Home) {
    let fixture = fixture(home);
    let (slots, releaser) = fixture.replica().await;
    let mut leases = Vec::new();
    for stream in 0..600 {
        let wanted = fixture.wanted(600);
        leases.push(fixture.take(&slots, wanted, &holder(&stream.to_string())).await.unwrap());
    }
    let rename = |from: &str, to: &str| {
        let sql = format!("ALTER TABLE {from} RENAME TO {to}");
        fixture.store.write(move |tx| tx.execute(&sql, &[]))
    };
    rename("slots", "elsewhere").await.unwrap();
    drop(leases.pop());
    let stop = CancellationToken::new();
    let rest = async {
        // Queued after the releaser's first write, which fails.
        rename("elsewhere", "slots").await.unwrap();
        while fixture.numbers().await.len() == 600 {}
        stop.cancel();
        drop(leases);
    };
    tokio::join!(releaser.run(stop.clone()), rest);
    assert!(fixture.numbers().await.is_empty());
}

async fn inspection_shows_live_streams_and_finds_them(home: Home) {
    let fixture = fixture(home);
    let (one, _one) = fixture.replica().await;
    let (two, _two) = fixture.replica().await;
    let (first, second, third) = (holder("a"), holder("a"), holder("b"));
    let elsewhere = Wanted { scope: Scope::Project(ProjectId::mint(), ada()), limit: 5 };
    let _a = fixture.take(&one, fixture.wanted(5), &first).await.unwrap();
    let _b = fixture.take(&two, vec![elsewhere], &second).await.unwrap();
    let _c = fixture.take(&two, fixture.wanted(5), &third).await.unwrap();
    let project = fixture.project;
    let ask = async |who: &Slots| {
        let (slots, third) = (who.clone(), third.connection);
        let asked = fixture.read(move |reader| {
            let of_project = slots.of_user_project(reader, &ada(), project, OLDEST).unwrap();
            let of_stream = slots.find_stream(reader, &ada(), "a", None, OLDEST).unwrap();
            (of_project, slots.find(reader, third, OLDEST).unwrap(), of_stream)
        });
        let (of_project, replica, of_stream) = asked.await;
        let ids =
            |open: Vec<Open>| open.into_iter().map(|open| open.connection).collect::<Vec<_>>();
        (of_project[0].about.clone(), ids(of_project), replica, ids(of_stream).len())
    };
    let about = "{\"tab\":\"a\"}".to_owned();
    let both = vec![first.connection, third.connection];
    assert_eq!(ask(&one).await, (about.clone(), both, Some(two.replica), 2));
    fixture.seen(&two, UNSEEN).await;
    assert_eq!(ask(&one).await, (about, vec![first.connection], None, 1));
}

#[test]
fn a_lease_is_small() {
    assert!(size_of::<Lease>() <= 40);
}
