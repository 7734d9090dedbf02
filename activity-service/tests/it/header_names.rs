//! Names of headers that no client of Rust can read.

use crate::world::{World, created, many, seconds};

/// Holds: No message stops the counting of others, whatever bytes it has.
#[tokio::test]
async fn a_header_whose_name_is_not_utf_8_stops_nobody() {
    let world = World::new(1).await;
    let service = world.setup().start().await;
    let message = created();
    world.topic().produce_with_header(message.value.as_deref().unwrap(), b"\xff\xfe").await;
    world.topic().produce_with_header(b"no JSON", b"ce_\xc3").await;
    world.produce(&many(10)).await;
    world.has_counted(11, seconds(20)).await;
    assert_eq!(world.quarantined().await, 1);
    world.at_rest().await;
    assert_eq!(service.metrics().await.sum("panics_total"), 0.0);
    assert!(!service.has_logged("panicked"));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}
