//! Tests how free places are shared out, by chance.

use proptest::prelude::*;

use super::*;

fn owners() -> impl Strategy<Value = Vec<Waiting>> {
    let owner = (0..5_i64, 1..6_i64, 0..100_i64);
    prop::collection::vec(owner, 0..6).prop_map(|owners| {
        let numbered = owners.into_iter().enumerate();
        let waiting = numbered.map(|(index, (running, due, rank))| Waiting {
            owner: format!("user-{index}").parse().unwrap(),
            running,
            due,
            rank,
        });
        waiting.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_place_stays_free_and_none_is_given_unfairly(owners in owners(), free in 0..20_i64) {
        let given = share_out(owners.clone(), free);
        let of = |owner: &Waiting| {
            given.iter().find(|(name, _)| *name == owner.owner).map_or(0, |(_, given)| *given)
        };
        let due: i64 = owners.iter().map(|owner| owner.due).sum();
        prop_assert_eq!(owners.iter().map(of).sum::<i64>(), free.min(due));
        for owner in &owners {
            prop_assert!(of(owner) <= owner.due);
            for other in &owners {
                // Nobody with more to run was passed over for somebody who already had more running.
                let passed_over = of(owner) < owner.due && of(other) > 0;
                prop_assert!(!passed_over || other.running + of(other) <= owner.running + of(owner) + 1);
            }
        }
    }
}
