//! A rolling update: the version before the newest migration counts on the schema after it, beside the version of now.
//! It has to be built from the history first, so this runs with `make upgrade`.

use reqwest::Method;
use testing::binary_before;

use crate::world::{World, client, created, figures, has_partitions, many, seconds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "builds the version before: make upgrade"]
async fn the_version_before_and_that_of_now_count_every_message_once_on_the_schema_of_now() {
    let world = World::new(4).await;
    // One from before the columns were named starts only where it may change every one.
    world.database.execute("GRANT UPDATE ON quarantine, consumption_gaps TO test_service").await;
    let before = world.setup().of(binary_before("activity-service"));
    let (old, new) = (before.start().await, world.setup().start().await);
    for service in [&old, &new] {
        has_partitions(service, |partitions| partitions == 2, seconds(60)).await;
    }
    let (good, of_unknown_type) = (many(2000), created().with_field("activityTypeCode", "ORDER_EATEN"));
    world.produce(&good).await;
    world.produce(&good[..500]).await;
    world.produce(&[of_unknown_type]).await;
    world.at_rest().await;
    assert_eq!((world.counted().await, world.quarantined().await), (2000, 1));
    assert_eq!(figures(&old, "/activities/2026-11-20").await, figures(&new, "/activities/2026-11-20").await);
    // What one of them has put aside the other one counts.
    let body = br#"{"activityTypeName": "Order Eaten"}"#.to_vec();
    let headers = [("content-type", "application/json")];
    let registered = client(&new).ask(Method::PUT, "/activity-types/ORDER_EATEN", &headers, body).await;
    assert_eq!(registered.unwrap().status, 201);
    assert_eq!(world.counted().await, 2001);
    new.kill().await;
    world.produce(&many(1000)).await;
    world.has_counted(3001, seconds(60)).await;
    assert_eq!(old.stop().await, Some(0));
    world.judge().await;
}
