//! Under the settings that administrators give to databases and roles.

use testing::{Database, server_settings::OF_ADMINISTRATORS};

use crate::world::{World, figures, many, seconds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_an_administrator_has_set_it_migrates_and_counts_each_message_once() {
    for (name, settings) in OF_ADMINISTRATORS {
        println!("{name}");
        let world = World::unmigrated(Database::empty().await).await;
        world.database.set(settings).await;
        let migrated = world.setup().set("database.url", world.database.owner_url()).run(&["migrate"]).await;
        assert_eq!(migrated.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&migrated.stderr));
        world.database.wants_durable_commits(&["consumer_positions", "processed_messages"]).await;
        let service = world.setup().start().await;
        let messages = many(300);
        world.produce(&messages).await;
        world.has_counted(300, seconds(20)).await;
        // Connections are idle for longer than their time-out.
        tokio::time::sleep(seconds(2)).await;
        world.produce(&messages[..50]).await;
        world.produce(&many(100)).await;
        world.has_counted(400, seconds(20)).await;
        let day = figures(&service, "/activities/2026-11-20").await;
        assert_eq!(day.iter().map(|(_, _, quantity)| quantity).sum::<i64>(), 400, "{name}");
        let complaints: Vec<_> = service.log().into_iter().filter(|line| line["level"] == "ERROR").collect();
        assert!(complaints.is_empty(), "{name}: {complaints:?}");
        world.at_rest().await;
        assert_eq!(service.stop().await, Some(0), "{name}");
        world.judge().await;
    }
}
