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
    fn the_reserve_is_for_idle_owners_once_each(owners in owners(), open in 0..4_usize, reserve in 0..4_usize) {
        let idle = |owner: &UserId| owner.to_string().ends_with(['0', '2', '4']);
        let given = share_out(owners.clone(), open, reserve, idle);
        let all: usize = given.iter().map(|(_, given)| given).sum();
        prop_assert!(all <= open + reserve);
        let firsts = given.iter().filter(|(owner, _)| idle(owner)).count();
        prop_assert!(all <= open + firsts, "the reserve gave an owner a second place");
        let waits = owners.iter().filter(|waiting| idle(&waiting.owner));
        let without = waits.filter(|waiting| given.iter().all(|(owner, _)| *owner != waiting.owner));
        prop_assert!(without.count() == 0 || all >= reserve, "an idle owner waits beside a free reserve");
    }

    #[test]
    fn no_place_stays_free_and_none_is_given_unfairly(owners in owners(), free in 0..20_usize) {
        let given = share_out(owners.clone(), free, 0, |_| true);
        let of = |owner: &Waiting| {
            let given = given.iter().find(|(name, _)| *name == owner.owner);
            given.map_or(0, |(_, given)| i64::try_from(*given).unwrap())
        };
        let due: i64 = owners.iter().map(|owner| owner.due).sum();
        prop_assert_eq!(owners.iter().map(of).sum::<i64>(), i64::try_from(free).unwrap().min(due));
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
