//! Under the settings that administrators give to databases and roles.

use testing::{Database, server_settings::OF_ADMINISTRATORS};

use crate::world::{World, seconds};

/// Holds: No commit is answered that a crash could take back, whatever the role or the database was given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_an_administrator_has_set_it_migrates_takes_orders_and_announces_each_once() {
    for (name, settings) in OF_ADMINISTRATORS {
        println!("{name}");
        let world = World::unmigrated(Database::empty().await);
        world.database.set(settings).await;
        let migrated = world.setup().set("database.url", world.database.owner_url()).run(&["migrate"]).await;
        assert_eq!(migrated.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&migrated.stderr));
        world.database.wants_durable_commits(&["instances", "orders", "outbox", "published"]).await;
        // A look at the session may take as long as this on a loaded machine, where everything is compiled.
        let service = world.setup().set("instance.takeover_after", "5s").start().await;
        let client = world.client(&service);
        client.load(100, 8).await;
        // Connections and the session are idle for longer than their time-out.
        tokio::time::sleep(seconds(2)).await;
        client.load(100, 8).await;
        assert_eq!(world.history.others(), [].into(), "{name}");
        let order = client.place_one().await;
        assert_eq!(client.change(&order, "complete").await.unwrap().status, 200, "{name}");
        assert_eq!(client.list("/orders?limit=200").await.len(), 201, "{name}");
        world.at_rest(seconds(20)).await;
        assert_eq!(client.list("/admin/messages?state=published").await.len(), 202, "{name}");
        assert_eq!(client.get(&format!("/admin/orders/{order}/timeline")).await.status, 200, "{name}");
        let complaints: Vec<_> = service.log().into_iter().filter(|line| line["level"] == "ERROR").collect();
        assert!(complaints.is_empty(), "{name}: {complaints:?}");
        assert!(!service.has_logged("lost the session"), "{name}");
        assert_eq!(service.stop().await, Some(0), "{name}");
        world.judge().await;
    }
}
