//! What is written to the log, where, and how much of it.

use std::{fs, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use testing::{Kafka, Proxy, Service, Signal, order_body, wait_until};

use crate::world::{World, seconds};

async fn change_level(service: &Service, body: &Value) -> u16 {
    let request = reqwest::Client::new().put(format!("{}/log-level", service.management())).json(body);
    request.send().await.unwrap().status().as_u16()
}

fn lines(service: &Service, level: &str) -> usize {
    service.log().iter().filter(|line| line["level"] == level).count()
}

#[tokio::test]
async fn the_level_can_be_changed_while_it_runs() {
    let world = World::new().await;
    let service = world.setup().start().await;
    for wrong in [json!({"level": 5}), json!({}), json!({"level": "info", "for": "1m"})] {
        assert_eq!(change_level(&service, &wrong).await, 422, "{wrong}");
    }
    // A regular expression of these would be compiled, for minutes.
    let pattern = format!("[{{a=\"{}\"}}]=info", "(\\p{L}{50}){50}");
    let many = ["order_service=info"; 33].join(",");
    let wrong =
        ["", "=loud=", "off", "info,order_service=off", "actix_http=trace", "actix_http::h1=trace", "always=error"];
    // Longer than the audit's index can hold.
    let long = format!("{}=info", uuid::Uuid::now_v7().simple().to_string().repeat(40));
    for wrong in wrong.into_iter().chain(["info,,debug", "[span]=info", &pattern, &many, &long]) {
        assert_eq!(change_level(&service, &json!({"level": wrong})).await, 422, "{wrong}");
    }
    assert_eq!(lines(&service, "DEBUG"), 0);
    assert_eq!(change_level(&service, &json!({"level": "debug"})).await, 200);
    world.client(&service).place_one().await;
    wait_until("debug lines are written", seconds(20), async || lines(&service, "DEBUG") > 0).await;
    assert_eq!(change_level(&service, &json!({"level": "error,order_service=error"})).await, 200);
    let lowered = |line: &Value| line["message"] == "the log level was changed" && line["level"] == "WARN";
    wait_until("that is told, whatever the level", seconds(20), async || {
        service.log().iter().filter(|line| lowered(line)).count() == 2
    })
    .await;
    let begun = service.log().into_iter().rfind(|line| line["message"] == "changing the log level").unwrap();
    assert!(begun["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{begun}");
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

#[tokio::test]
async fn each_change_of_the_level_is_told_however_many_there_are() {
    let world = World::new().await;
    let service = world.setup().start().await;
    for _ in 0..6 {
        // No request has a span at this level.
        assert_eq!(change_level(&service, &json!({"level": "order_service=info"})).await, 200);
    }
    for message in ["changing the log level", "the log level was changed"] {
        let told = || service.log().iter().filter(|line| line["message"] == message).count();
        wait_until(message, seconds(20), async || told() == 6).await;
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn what_the_audit_has_not_taken_at_the_end_stands_in_the_log() {
    let world = World::new().await;
    let proxy = Proxy::before(world.database.address()).await;
    let url = world.database.url_through(proxy.port());
    let mut service = world.setup().set("database.url", url).set("shutdown.grace", "5s").start().await;
    proxy.refuse();
    for _ in 0..5 {
        assert_eq!(change_level(&service, &json!({"level": "order_service=error"})).await, 200);
    }
    service.terminate();
    service.ended(seconds(30)).await;
    let told = service.log().iter().filter(|line| line["message"] == "what was done stands in the log only").count();
    assert_eq!(told, 5);
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn what_must_be_known_is_logged_and_what_callers_send_is_not_whatever_the_variable_says() {
    let world = World::new().await;
    for wanted in
        ["info,shared::web::auth=off", "info,always[{message}]=off,actix_http::h1=trace", "info,order_service=loud"]
    {
        let service = world.setup().variable("RUST_LOG", wanted).start().await;
        wait_until("it is told", seconds(20), async || service.has_logged("auth.mode is disabled")).await;
        let is_of_connections =
            |line: &Value| line["target"].as_str().is_some_and(|target| target.starts_with("actix_http"));
        assert!(!service.log().iter().any(is_of_connections), "{wanted}");
        assert_eq!(service.has_logged("RUST_LOG cannot be read"), wanted.ends_with("=loud"), "{wanted}");
        assert_eq!(service.stop().await, Some(0));
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn files_are_written_where_they_are_wanted_and_the_oldest_removed() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    for day in 1..=5 {
        fs::write(folder.path().join(format!("order-service.2020-01-0{day}.log")), "{}\n").unwrap();
        // They are told apart by the time they were made at.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let setup = world.setup().set("log.file.directory", folder.path().display()).set("log.file.kept", 3);
    let service = setup.start().await;
    world.client(&service).place_one().await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(names[..2], ["order-service.2020-01-04.log", "order-service.2020-01-05.log"]);
    let text = fs::read_to_string(folder.path().join(&names[2])).unwrap();
    let written: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for message in ["listening", "draining"] {
        assert!(written.iter().any(|line| line["message"] == message), "{message}: {text}");
    }
    world.judge().await;
}

/// Holds: No line of the log is lost on a full disk without being counted.
#[tokio::test]
async fn a_full_disk_under_the_files_is_counted_and_told_once_and_a_signal_opens_them_anew() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let today = || folder.path().join(format!("order-service.{}.log", time::OffsetDateTime::now_utc().date()));
    // Midnight may come.
    let tomorrow = time::OffsetDateTime::now_utc().date().next_day().unwrap();
    let full = [today(), folder.path().join(format!("order-service.{tomorrow}.log"))];
    for file in &full {
        std::os::unix::fs::symlink("/dev/full", file).unwrap();
    }
    // At debug each order leaves lines.
    let setup = world.setup().set("log.level", "debug").set("log.file.directory", folder.path().display());
    let service = setup.start().await;
    let client = world.client(&service);
    client.place_one().await;
    let told = |message: &str| service.log().iter().filter(|line| line["message"] == message).count();
    wait_until("it is told", seconds(20), async || told("the log cannot be written: lines are lost") > 0).await;
    // Standard output has them.
    let lost = service.log().len() as f64;
    wait_until("each is counted", seconds(20), async || service.metrics().await.sum("log_lines_dropped_total") >= lost)
        .await;

    for file in &full {
        fs::remove_file(file).unwrap();
    }
    service.signal(Signal::HUP);
    wait_until("it is written again", seconds(20), async || {
        client.place_one().await;
        told("the log is written again") > 0
    })
    .await;
    assert_eq!(told("the log cannot be written: lines are lost"), 1, "once");
    // As logrotate does.
    let moved = folder.path().join("moved");
    fs::rename(today(), &moved).unwrap();
    service.signal(Signal::HUP);
    wait_until("another file is there", seconds(20), async || {
        client.place_one().await;
        today().exists()
    })
    .await;
    assert!(fs::read_to_string(&moved).unwrap().contains("the log is written again"));
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn lines_of_a_request_have_its_id_and_its_trace_at_any_level() {
    let world = World::new().await;
    let service = world.setup().set("log.level", "info").failpoint("http::handler", "1*return(x)").start().await;
    assert_eq!(change_level(&service, &json!({"level": "error"})).await, 200);
    let headers = [
        ("content-type", "application/json"),
        ("x-request-id", "the-request"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
    ];
    let body = serde_json::to_vec(&order_body("C-1")).unwrap();
    let client = world.client(&service);
    assert_eq!(client.ask(Method::POST, "/orders", &headers, body).await.unwrap().status, 500);
    wait_until("the panic is logged", seconds(20), async || lines(&service, "ERROR") > 0).await;
    let line = service.log().into_iter().find(|line| line["level"] == "ERROR").unwrap();
    assert_eq!(line["span"]["request.id"], "the-request", "{line}");
    assert_eq!(line["span"]["trace.id"], "4bf92f3577b34da6a3ce929d0e0e4736", "{line}");
    assert_eq!(service.metrics().await.sum("panics_total"), 1.0);
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn at_level_debug_the_id_of_a_request_leads_to_its_order() {
    let world = World::new().await;
    let service = world.setup().set("log.level", "info,order_service=debug").start().await;
    let client = world.client(&service);
    let placed = client.place().await.unwrap();
    let order = placed.body["orderRef"].as_str().unwrap();
    let cancelled = client.change(order, "cancel").await.unwrap();
    for answer in [&placed, &cancelled] {
        let id = answer.header("x-request-id");
        let names = |line: &Value| line["span"]["request.id"] == id && line["order.ref"] == order;
        wait_until(&format!("the order is named for {id}"), seconds(20), async || service.log().iter().any(names))
            .await;
    }
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_broker_writes_no_more_than_ten_lines_a_minute() {
    let mut kafka = Kafka::absent().await;
    let world = World::with_kafka(&kafka).await;
    let service = world.setup().set("publisher.queue_capacity", 100).start().await;
    let client = world.client(&service);
    let before = service.log().len();
    client.load_during(2, tokio::time::sleep(seconds(20))).await;
    let written = service.log();
    assert!(written.len() <= before + 10, "{:#?}", &written[before..]);
    assert!(world.history.others().is_empty(), "{:?}", world.history.others());
    kafka.start_again().await;
    world.at_rest(seconds(60)).await;
    world.judge().await;
}
