//! The commands of operators with a shell: `activity-service quarantine`.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    operator::{EATEN, Operator, eaten, replayed},
    world::{World, created},
};

/// The exit code, and what it prints.
async fn run(world: &World, arguments: &[&str]) -> (i32, String) {
    let setup = world.setup().variable("USER", "somebody");
    let done = setup.run(&[&["quarantine"], arguments].concat()).await;
    (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap())
}

async fn json(world: &World, arguments: &[&str]) -> Value {
    let (code, printed) = run(world, &[arguments, &["--json"]].concat()).await;
    assert_eq!(code, 0, "{arguments:?}: {printed}");
    serde_json::from_str(&printed).unwrap()
}

#[tokio::test]
async fn messages_are_listed_and_shown_as_the_routes_do() {
    let world = World::new(1).await;
    world.produce(&[created().with_value(b"\xff raw".as_slice()), eaten(), eaten()]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    assert_eq!(json(&world, &["list"]).await, json!(operator.quarantine("").await));
    assert_eq!(
        json(&world, &["list", "--reason", "unknown_type", "--limit", "1"]).await,
        operator.0.get("/admin/quarantine?reason=unknown_type&limit=1").await.body
    );
    assert_eq!(json(&world, &["list", "--state", "counted"]).await, json!([]));
    let id = operator.id_at(0, "waiting").await;
    assert_eq!(json(&world, &["show", &id]).await, operator.0.get(&format!("/admin/quarantine/{id}")).await.body);
    let (code, table) = run(&world, &["list"]).await;
    let other = &operator.quarantine("").await[1];
    let text_of = |name: &str| other[name].as_str().unwrap();
    for text in [&id, "unknown_type", EATEN, text_of("key"), text_of("messageRef")] {
        assert!(code == 0 && table.contains(text), "{text}: {table}");
    }
    let (code, table) = run(&world, &["show", &id]).await;
    assert!(code == 0 && table.contains("\\xff raw"), "{table}");

    let unknown = Uuid::now_v7().to_string();
    for (arguments, code) in [
        (vec!["show", &unknown], 1),
        (vec!["replay", &unknown], 1),
        (vec!["discard", &unknown, "--reason", "x"], 1),
        (vec!["show", "x"], 2),
        (vec!["list", "--state", "new"], 2),
        (vec!["list", "--reason", "x"], 2),
        (vec!["list", "--limit", "0"], 2),
        (vec!["replay"], 2),
        (vec!["replay", &id, "--all"], 2),
        (vec!["replay", &id, "--topic", "x"], 2),
        (vec!["replay", "--all", "--topic", "x"], 2),
        (vec!["replay", "--from", "2026-11-20_12:00:00Z"], 2),
        (vec!["discard", "--reason", "x"], 2),
        (vec!["edit", &id, "--file", "/etc/hostname"], 2),
        (vec!["edit", &id, "--file", "/nowhere", "--reason", "x"], 1),
        (vec!["edit", &id, "--file", "/etc/hostname", "--reason", "x"], 1),
        (vec!["discard", &id], 2),
        (vec!["discard", &id, "--reason", " "], 2),
        (vec![], 2),
    ] {
        assert_eq!(run(&world, &arguments).await.0, code, "{arguments:?}");
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn messages_are_replayed_and_discarded_without_a_service_and_it_is_kept_by_whom() {
    let world = World::new(1).await;
    world.produce(&[eaten(), eaten(), created().with_value("not json"), eaten(), created()]).await;
    world.run_to_rest().await;
    // Known, and not registered, so that they wait.
    world.database.execute(&format!("INSERT INTO activity_types VALUES ('{EATEN}', 'Order Eaten')")).await;
    let before = world.content().await;
    let (code, printed) = run(&world, &["replay", "--all", "--dry-run"]).await;
    assert_eq!(
        (code, printed.trim_end()),
        (0, "would be counted 3, duplicates 0, still waiting 1\n2026-11-20 ORDER_EATEN +3")
    );
    let mut would = replayed(3, 0, 1);
    would["figures"] = json!([{"activityDate": "2026-11-20", "activityTypeCode": EATEN, "change": 3}]);
    assert_eq!(json(&world, &["replay", "--all", "--dry-run"]).await, would);
    assert_eq!(world.content().await, before, "nothing has changed");

    let ids: Vec<Uuid> = sqlx::query_scalar("SELECT quarantine_id FROM quarantine ORDER BY \"offset\"")
        .fetch_all(&world.database.pool)
        .await
        .unwrap();
    let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    let discarded = json(&world, &["discard", &ids[0], "--reason", "test data", "--actor", "me"]).await;
    assert_eq!((&discarded["resolvedBy"], &discarded["resolution"]), (&json!("me"), &json!("test data")));
    assert_eq!(json(&world, &["replay", &ids[1], "--actor", "me"]).await, replayed(1, 0, 0));
    assert_eq!(json(&world, &["replay", "--all", "--force"]).await, replayed(1, 0, 1));
    for settled in &ids[..2] {
        assert_eq!(run(&world, &["replay", settled]).await.0, 1, "it waits no more");
        assert_eq!(run(&world, &["discard", settled, "--reason", "x"]).await.0, 1);
    }
    let counted = json(&world, &["list", "--state", "counted"]).await;
    let audit: Vec<_> =
        counted.as_array().unwrap().iter().map(|one| (&one["resolvedBy"], &one["resolution"])).collect();
    let by = |who: &str, why: &str| (json!(who), json!(why));
    let (first, second) = (by("me", "replayed"), by("somebody", "replayed with force"));
    assert_eq!(audit, [(&first.0, &first.1), (&second.0, &second.1)]);
    assert_eq!(world.counted().await, 3);
    world.read_again().await;
    assert_eq!(world.counted().await, 3);
    world.judge().await;
}

#[tokio::test]
async fn those_of_a_filter_are_discarded_or_replayed_in_one_command_and_one_is_edited() {
    let world = World::new(1).await;
    let drunk = eaten().with_field("activityTypeCode", "ORDER_DRUNK");
    world.produce(&[eaten(), eaten(), drunk.clone(), created().with_value("not json"), created()]).await;
    world.run_to_rest().await;
    let before = world.content().await;
    let reason = ["--reason", "a test"];
    let of_a_type = [&["discard", "--type", EATEN], &reason[..]].concat();
    assert_eq!(run(&world, &[&of_a_type[..], &["--dry-run"]].concat()).await.1.trim_end(), "would be discarded 2");
    assert_eq!(world.content().await, before);
    assert_eq!(json(&world, &of_a_type).await, json!({"discarded": 2}));
    let nothing = replayed(0, 0, 0);
    assert_eq!(json(&world, &["replay", "--reason-code", "unknown_type", "--topic", "other"]).await, nothing);
    assert_eq!(json(&world, &["replay", "--reason-code", "unknown_type"]).await, replayed(0, 0, 1));

    let listed = json(&world, &["list", "--reason-code", "not_json"]).await;
    let id = listed[0]["id"].as_str().unwrap();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("mended.json");
    std::fs::write(&file, created().value.unwrap()).unwrap();
    let edit = ["edit", id, "--file", file.to_str().unwrap(), "--reason", "a comma was missing", "--actor", "me"];
    let edited = json(&world, &edit).await;
    let (by, why) = (&edited["resolvedBy"], &edited["resolution"]);
    assert_eq!((&edited["state"], by, why), (&json!("counted"), &json!("me"), &json!("a comma was missing")));
    assert_eq!(run(&world, &edit).await.0, 1, "it waits no more");
    assert!(run(&world, &["show", id]).await.1.contains("corrected: {"));
    assert_eq!(json(&world, &[&["discard", "--all"], &reason[..]].concat()).await, json!({"discarded": 1}));
    assert_eq!(world.counted().await, 2);
    world.judge().await;
}
