//! Secrets and keys in files that change while the service runs.

use std::path::Path;

use serde_json::json;
use testing::{Checker, Kafka, Postgres, Service, Setup, Signer, binary, wait_until};

use crate::world::{World, seconds};

/// As Kubernetes does: nobody sees half of it.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

async fn places(world: &World, service: &Service) -> bool {
    world.client(service).place().await.is_ok_and(|answer| answer.status == 201)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_has_changed_needs_no_restart() {
    let postgres = Postgres::start().await;
    let world = World::with_postgres(&postgres).await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("url");
    replace(&file, &(world.database.url_with_password("first").await + "\n"));
    postgres.ask_for_password("test_service").await;
    // Empty is unset.
    let setup = world.setup().set("database.url", "").set("database.url_file", file.display());
    let service = setup.start().await;
    assert!(places(&world, &service).await);
    world.at_rest(seconds(10)).await;

    let second = world.database.url_with_password("second").await;
    assert!(places(&world, &service).await, "open connections go on");
    replace(&file, &second);
    world.database.end_sessions().await;
    wait_until("orders are placed again", seconds(20), async || places(&world, &service).await).await;
    wait_until("orders are read again", seconds(20), async || {
        world.client(&service).get("/orders").await.status == 200
    })
    .await;
    // Sent and marked, which needs the session too.
    world.at_rest(seconds(20)).await;
    assert!(service.has_logged("lost the session"));

    replace(&file, "no url");
    wait_until("it is told", seconds(10), async || service.has_logged("cannot use database.url_file")).await;
    assert!(places(&world, &service).await);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Holds: A password of Kafka that has changed in its file needs no restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_of_kafka_that_has_changed_needs_no_restart() {
    let mut kafka = Kafka::asking_for_password("first").await;
    let world = World::with_kafka(&kafka).await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("password");
    replace(&file, "first\n");
    let service = kafka.with_password_file(world.setup(), &file).start().await;
    assert!(places(&world, &service).await);
    world.at_rest(seconds(20)).await;

    kafka.stop().await;
    kafka.change_password("second");
    kafka.start_again().await;
    assert!(places(&world, &service).await);
    wait_until("the old password is refused", seconds(30), async || service.has_logged("a broker refuses")).await;
    assert_eq!(world.count("unpublished").await, 1);
    replace(&file, "second\n");
    world.at_rest(seconds(30)).await;
    for component in ["publisher", "topics", "announcer"] {
        wait_until(component, seconds(30), async || {
            service.health().await["components"][component]["state"] == "working"
        })
        .await;
    }
    assert_eq!(service.stop().await, Some(0));
    // What was on its way to the broker when that stopped.
    world.judge_with(Checker::duplicates_allowed).await;
}

#[tokio::test]
async fn keys_in_a_file_are_read_again_when_they_change() {
    let world = World::new().await;
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let status = async |service: &Service, signer: &Signer| {
        world.client(service).bearing(signer.token(json!({}))).get("/orders").await.status
    };
    let set = |signer: &Signer| json!({"keys": [signer.jwk()]}).to_string();
    let home = tempfile::tempdir().unwrap();
    for (setting, before, after) in [
        ("auth.jwks_file", set(&old), set(&new)),
        ("auth.public_key_file", old.public_key().to_owned(), new.public_key().to_owned()),
    ] {
        let file = home.path().join(setting);
        replace(&file, &before);
        let setup = world.setup().trusting_issuer("").set(setting, file.display());
        let service = setup.start().await;
        assert_eq!((status(&service, &old).await, status(&service, &new).await), (200, 401), "{setting}");
        replace(&file, &after);
        wait_until("the new key is good", seconds(10), async || status(&service, &new).await == 200).await;
        assert_eq!(status(&service, &old).await, 401, "{setting}: what it was good for is forgotten");
        std::fs::write(&file, &after[..20]).unwrap();
        wait_until("it is told", seconds(10), async || service.has_logged("cannot use the file of keys")).await;
        assert_eq!(status(&service, &new).await, 200, "{setting}: half a file changes nothing");
        assert_eq!(service.stop().await, Some(0));
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn a_secret_is_given_once_and_its_file_has_to_be_there() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("secret");
    let bare = || Setup::bare(binary("order-service")).set("auth.mode", "disabled");
    let url = "postgres://clerk:hunter2@127.0.0.1:1/db";
    for (given, value, text) in [
        ("database.url", url, url),
        ("database.session_url", url, url),
        ("kafka.properties.sasl.password", "hunter2", "hunter2"),
        ("kafka.properties.ssl.key.password", "hunter2", "hunter2\n"),
    ] {
        let by_file = format!("{given}_file");
        let setup = if given == "database.url" { bare() } else { bare().set("database.url", url) };
        let told = async |setup: &Setup| {
            let done = setup.run(&["config"]).await;
            (done.status.code(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
        };
        let setup = setup.set(&by_file, file.display());
        drop(std::fs::remove_file(&file));
        let (code, line) = told(&setup).await;
        assert!(code == Some(2) && line.starts_with(&format!("{by_file}: cannot be read")), "{line}");
        std::fs::write(&file, text).unwrap();
        let (code, shown) = told(&setup).await;
        assert!(code == Some(0) && !shown.contains("hunter2") && shown.contains("/secret\""), "{given}: {shown}");
        let (code, line) = told(&setup.set(given, value)).await;
        assert!(code == Some(2) && line.starts_with(&format!("{by_file}: cannot be given together")), "{line}");
    }
    // The rules of the secret are those of the file.
    std::fs::write(&file, "postgres://clerk:hunter2@db.example/orders").unwrap();
    let done = bare().set("database.url_file", file.display()).run(&["serve"]).await;
    let line = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.code() == Some(2) && line.starts_with("database.url_file: would send"), "{line}");
}
