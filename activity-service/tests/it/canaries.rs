use reqwest::Method;
use testing::{CANARY, Errand, Proxy, Raw, RawAnswer, Received, headers_of_all_kinds, told, wait_until};

use crate::world::{World, client, created, seconds};

const UNKNOWN: &str = "/admin/quarantine/0192f0c1-7a5e-7c3a-9d2b-3f4e5a6b7c8d";

fn errands() -> Vec<Errand> {
    let put = |body: String| Errand::new(Method::PUT, "/activity-types/ORDER_EATEN").json(body);
    let replay = |body: String| Errand::new(Method::POST, "/admin/quarantine/replay").json(body);
    let mut errands = vec![
        put(format!(r#"{{"activityTypeName":"{CANARY}"#)),
        put(format!(r#"{{"activityTypeName":["{CANARY}"]}}"#)),
        put(format!(r#"{{"activityTypeName":"Eaten","more":"{CANARY}"}}"#)),
        put(format!(r#"{{"activityTypeName":"{}"}}"#, CANARY.repeat(100))),
        put(format!(r#"{{"activityTypeName":"{CANARY}\u0007"}}"#)),
        put(CANARY.repeat(7_000)),
        replay(CANARY.into()),
        replay(format!(r#"{{"force":"{CANARY}"}}"#)),
        replay(format!(r#"{{"more":["{CANARY}"]}}"#)),
        Errand::new(Method::PUT, "/activities/today").json(CANARY),
        Errand::new(Method::DELETE, format!("{UNKNOWN}?reason={CANARY}")),
        Errand::new(Method::DELETE, format!("{UNKNOWN}?reason={}", CANARY.repeat(100))),
        Errand::new(Method::DELETE, format!("{UNKNOWN}?{CANARY}=x")),
        Errand::new(Method::GET, format!("/activities/today?token={CANARY}")),
        Errand::new(Method::GET, format!("/activities?from={CANARY}&to={CANARY}")),
        Errand::new(Method::GET, format!("/activities?from=2026-11-20&to=2026-11-20&activityTypeCode={CANARY}")),
        Errand::new(Method::GET, format!("/activity-types?{CANARY}")),
        Errand::new(Method::GET, format!("/nothing?token={CANARY}")),
    ];
    for query in ["limit", "cursor", "state", "reason", CANARY] {
        errands.push(Errand::new(Method::GET, format!("/admin/quarantine?{query}={CANARY}")));
    }
    errands.extend(headers_of_all_kinds());
    errands
}

/// Holds: Nothing that a caller sends and no secret is in errors, logs or metrics of activity-service, at level
/// debug too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_sent_or_secret_comes_back_in_errors_logs_or_metrics() {
    let world = World::new(1).await;
    let proxy = Proxy::before(world.database.address()).await;
    let url = world.database.url_through(proxy.port()).replacen("postgres@", &format!("postgres:{CANARY}@"), 1);
    let setup = world.setup().set("database.url", url).set("kafka.properties.sasl.password", CANARY);
    let service = setup.set("log.level", "debug").start().await;
    let client = client(&service);
    for errand in errands() {
        errand.run(&client).await;
    }
    let mut caller = Raw::connect(&service.api()).await;
    caller.send(format!("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: {CANARY}\r\n\r\n").as_bytes()).await;
    let answered = caller.rest().await;
    assert!(!String::from_utf8_lossy(&answered).contains(CANARY));
    RawAnswer::all(&answered).iter().for_each(RawAnswer::is_problem);

    // What other services send is kept with its bytes, and told to nobody but who asks for them.
    let bad = |value: String| Received { value: Some(value.into_bytes()), ..created() };
    world
        .produce(&[
            bad(CANARY.into()),
            bad(format!(r#"{{"messageRef":"{CANARY}","activityTypeCode":"{CANARY}","activityAt":"{CANARY}"}}"#)),
            bad(format!(r#"["{CANARY}"]"#)),
        ])
        .await;
    wait_until("they are kept", seconds(30), async || world.quarantined().await == 3).await;

    proxy.refuse();
    wait_until("the pool has noticed", seconds(20), async || client.get("/activity-types").await.status == 503).await;
    let name = format!(r#"{{"activityTypeName":"{CANARY}"}}"#);
    Errand::new(Method::PUT, "/activity-types/ORDER_EATEN").json(name).run(&client).await;
    proxy.pass();
    assert_eq!(told(&service).await, Vec::<String>::new());
    world.judge().await;
}
