//! `activity-service figures verify`: which days it looks at, what it says of them, and how it ends.

use crate::world::{World, created};

/// The exit code, what is printed, and what is complained of.
async fn verify(world: &World, bounds: &[&str]) -> (Option<i32>, Vec<String>, String) {
    let done = world.setup().run(&[&["figures", "verify"], bounds].concat()).await;
    let printed = String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect();
    (done.status.code(), printed, String::from_utf8(done.stderr).unwrap())
}

#[tokio::test]
async fn the_days_that_are_asked_for_are_compared_and_what_no_source_has_told_of_is_unknown() {
    let world = World::new(1).await;
    let on = |day: &str| created().with_field("activityAt", format!("{day}T12:00:00Z"));
    world.produce(&["2026-11-19", "2026-11-20", "2026-11-21", "2026-11-21"].map(on)).await;
    world.run_to_rest().await;
    let lines = [("2026-11-19", 1), ("2026-11-20", 1), ("2026-11-21", 2)]
        .map(|(day, count)| format!("{day} ORDER_CREATED figure {count} keys {count} written -: unknown"));
    let last = |days| format!("{days} days, 0 of them wrong, {days} unknown; in quarantine, in gaps or failed: 0");
    let all: &[&str] = &[];
    for (bounds, expected) in [
        (all, &lines[..]),
        (&["--from", "2026-11-20"], &lines[1..]),
        (&["--to", "2026-11-20"], &lines[..2]),
        (&["--from", "2026-11-20", "--to", "2026-11-20"], &lines[1..2]),
        (&["--from", "2026-11-22"], &[]),
    ] {
        let expected = [expected, &[last(expected.len())]].concat();
        assert_eq!(verify(&world, bounds).await, (Some(0), expected, String::new()), "{bounds:?}");
    }
    // Nothing lies between them, so nothing of it is wrong.
    let swapped = verify(&world, &["--from", "2026-11-21", "--to", "2026-11-20"]).await;
    assert_eq!(swapped, (Some(2), Vec::new(), "--from: must not be after --to\n".to_owned()));

    let change = |sign| {
        format!("UPDATE daily_activity_shards SET quantity = quantity {sign} 1 WHERE activity_date = '2026-11-19'")
    };
    world.database.execute(&change('+')).await;
    let (code, printed, told) = verify(&world, &[]).await;
    assert_eq!((code, &printed[3]), (Some(1), &last(3).replace("0 of", "1 of").replace("3 un", "2 un")));
    assert!(printed[0].ends_with("figure 2 keys 1 written -: the figure is more than its keys"), "{printed:?}");
    assert!(told.starts_with("figures differ"), "{told}");
    assert_eq!(verify(&world, &["--from", "2026-11-20"]).await.0, Some(0), "another day is");
    // Whether anybody reads it or not.
    let codes = world.setup().run_unread(&["figures", "verify"]).await.map(|(code, _)| code);
    assert_eq!(codes, [Some(1), Some(1)]);
    world.database.execute(&change('-')).await;
    let codes = world.setup().run_unread(&["figures", "verify"]).await.map(|(code, _)| code);
    assert_eq!(codes, [Some(0), Some(1)], "a disk that is full is a failure");
    world.judge().await;
}
