//! The page of operators, in a real browser.

use reqwest::Method;
use serde_json::{Value, json};
use testing::{Browser, Signer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    messages::failed_and_published,
    world::{World, seconds},
};

/// As WebDriver names the key.
const ENTER: &str = "\u{e007}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_failed_messages_and_sends_one_again_and_then_all() {
    let (world, service, client) = failed_and_published(7, 8).await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/operations", service.api())).await;
    browser.shows("#strip", seconds(15), |text| text.contains("Failed\n7") && text.contains("Takes all")).await;
    browser.shows("#list tbody", seconds(5), |text| text.matches("ORDER_CREATED").count() == 7).await;
    browser.is_for_everybody("outbox").await;
    // Times are told in UTC where they are pointed at, and whose they are else.
    browser.shows("#footnote", seconds(5), |text| text.starts_with("Times are those of ")).await;
    let utc = "return ['#list tbody td span', '#status-text'].map(place => document.querySelector(place).title)";
    let utc = browser.script(utc).await;
    assert!(utc.as_array().unwrap().iter().all(|text| text.as_str().unwrap().ends_with('Z')), "{utc}");

    browser.click("#list tbody tr:first-child button").await;
    browser.shows("#opened", seconds(5), |text| text.contains("Last error")).await;
    browser.is_for_everybody("outbox-message").await;
    // What is open is in the address.
    let opened = browser.text("#opened h2").await;
    browser.reload().await;
    browser.shows("#opened h2", seconds(5), |text| text == opened).await;
    browser.click("#opened header button.primary").await;
    browser.shows("dialog", seconds(5), |text| text.contains(&opened)).await;
    browser.enter("#reason", "the topic takes it now").await;
    browser.click("dialog button.primary").await;
    browser.shows("#done", seconds(5), |text| text == "It will be sent.").await;
    browser.shows("#strip", seconds(15), |text| text.contains("Failed\n6")).await;

    // Those that are ticked, and no others.
    let rows = "return document.querySelectorAll('#list tbody tr').length";
    testing::wait_until("it has left the list", seconds(10), async || browser.script(rows).await == 6).await;
    browser.click("#list tbody tr:nth-child(2) input").await;
    browser.click("#list tbody tr:nth-child(5) input").await;
    browser.shows("#all", seconds(5), |text| text == "Send 2 again …").await;
    browser.is_for_everybody("outbox-ticked").await;
    let ticked = "return [...document.querySelectorAll('#list tbody tr')].filter(row => row.querySelector('input').checked).map(row => row.querySelector('button').textContent)";
    let ticked = browser.script(ticked).await;
    let asked = "return performance.getEntriesByType('resource').filter(one => one.name.endsWith('/retry')).length";
    let before = browser.script(asked).await.as_u64().unwrap();
    browser.click("#all").await;
    browser.shows("dialog", seconds(5), |text| text.contains("2 messages will be sent again")).await;
    assert_eq!(browser.script(asked).await, before + 2, "the service was asked how many");
    assert_eq!(world.count("failed").await, 6, "nothing is done without consent");
    browser.enter("#reason", "the topic takes these now").await;
    browser.click("dialog button.primary").await;
    browser.shows("#done", seconds(5), |text| text == "2 will be sent.").await;
    browser.shows("#strip", seconds(15), |text| text.contains("Failed\n4")).await;
    let left: Vec<String> =
        sqlx::query_scalar("SELECT order_ref(order_id) FROM rejected_messages WHERE state = 'failed'")
            .fetch_all(&world.database.pool)
            .await
            .unwrap();
    assert!(
        ticked.as_array().unwrap().iter().all(|one| !left.iter().any(|left| one == left.as_str())),
        "{ticked} {left:?}"
    );
    browser.shows("#all", seconds(5), |text| text == "Send all again …").await;
    // What works all the while is told as well.
    browser.shows("#tasks summary", seconds(5), |text| text.starts_with("Background tasks all ")).await;
    browser.click("#tasks summary").await;
    browser.shows("#tasks", seconds(5), |text| text.contains("publisher") && text.contains("Working")).await;
    browser.is_for_everybody("outbox-tasks").await;

    browser.click("#all").await;
    browser.shows("dialog", seconds(5), |text| text.starts_with("Send failed messages again?\n4 messages")).await;
    browser.click("dialog button[type=button]").await;
    assert_eq!(world.count("failed").await, 4, "nothing is done without consent");
    browser.click("#all").await;
    browser.shows("dialog", seconds(5), |text| text.starts_with("Send failed messages again?\n4 messages")).await;
    browser.enter("#reason", "the topic takes all now").await;
    browser.click("dialog button.primary").await;
    browser.shows("#done", seconds(5), |text| text == "4 will be sent.").await;
    browser.shows("#list", seconds(15), |text| text.contains("Nothing has failed.")).await;
    world.at_rest(seconds(10)).await;
    browser.click("#states button:nth-child(3)").await;
    testing::wait_until("all are announced", seconds(10), async || browser.script(rows).await == 15).await;
    let audited = client.list("/admin/audit?action=message_retried").await;
    let why = |reason: &str| audited.iter().filter(|one| one["reason"] == reason).count();
    let of_each = ["the topic takes it now", "the topic takes these now", "the topic takes all now"].map(why);
    assert_eq!(of_each, [1, 2, 4], "{audited:?}");
    assert_eq!(browser.console().await, [] as [String; 0]);
    assert_eq!(browser.origins().await, [service.api()].into());
    browser.close().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_who_publishes_and_lets_announcing_rest_for_a_while() {
    let (world, signer) = (World::new().await, Signer::es256("pages"));
    // The one that is killed stays to be seen.
    let setup = world.setup().trusting(&signer).set("metrics.database_every", "100ms");
    let setup = setup.set("instance.takeover_after", "60s");
    let (one, other) = tokio::join!(setup.start(), setup.start());
    let token = signer.token(json!({}));
    let client = world.client(&one).bearing(&token);
    client.load(40, 4).await;

    let browser = Browser::start().await;
    let reader = signer.token(json!({ "scope": "orders:read" }));
    browser.open(&format!("{}/operations#token={reader}", one.api())).await;
    browser.shows("#signin", seconds(10), |text| text.contains("the scope operations")).await;
    assert_eq!(browser.text("#content").await, "", "nothing is shown, the pause neither");
    browser.enter("#token", &token).await;
    browser.click("#signin form button").await;
    browser.shows("#strip", seconds(10), |text| text.contains("Instances\n2")).await;
    browser.shows("#instances tbody", seconds(10), |text| text.matches("Publishing").count() == 2).await;
    client.load(60, 4).await;
    let rate = |text: &str| text.strip_prefix("Orders a second\n").and_then(|text| text.lines().next()?.parse().ok());
    browser.shows("#strip", seconds(15), |text| rate(text).is_some_and(|rate: f64| rate > 0.0)).await;
    other.kill().await;
    browser.shows("#strip", seconds(30), |text| text.contains("Instances\n1") && text.contains("1 gone")).await;
    browser.shows("#instances tbody", seconds(10), |text| text.contains("Gone: is taken over soon")).await;

    // By keys alone: with a reason, and an end.
    browser.shows("#pause", seconds(10), |text| text.contains("Announcing is not paused.")).await;
    let paused = async || client.get("/admin/pause").await.body;
    browser.script("document.querySelector('#pause button').focus()").await;
    browser.press(&[ENTER]).await;
    browser.shows("dialog", seconds(10), |text| text.contains("Orders are taken meanwhile")).await;
    assert_eq!(paused().await["paused"], false, "nothing is done without consent");
    browser.enter("#lasts", "30").await;
    browser.enter("#reason", "the topic is moved").await;
    browser.press(&[ENTER]).await;
    browser.shows("#done", seconds(10), |text| text == "Paused.").await;
    let told =
        |text: &str| text.contains("is paused by tester") && text.contains("until ") && text.contains("is moved");
    browser.shows("#pause", seconds(10), told).await;
    let pause = paused().await;
    let time = |name: &str| OffsetDateTime::parse(pause[name].as_str().unwrap(), &Rfc3339).unwrap();
    assert_eq!(
        (&pause["reason"], time("until") - time("since")),
        (&json!("the topic is moved"), time::Duration::minutes(30))
    );
    browser.is_for_everybody("outbox-paused").await;
    // What somebody else has done shows by itself.
    client.ask(Method::DELETE, "/admin/pause", &[], Vec::new()).await.unwrap();
    browser.shows("#pause", seconds(10), |text| text.contains("is not paused")).await;
    client
        .ask(
            Method::PUT,
            "/admin/pause",
            &[("content-type", "application/json")],
            json!({ "reason": "x" }).to_string().into(),
        )
        .await
        .unwrap();
    browser.shows("#pause", seconds(10), |text| text.contains("until somebody resumes: x")).await;
    browser.click("#pause button").await;
    browser.click("dialog button.primary").await;
    browser.shows("#done", seconds(10), |text| text == "Resumed.").await;
    assert_eq!(paused().await["paused"], false);

    // Of many messages a page is shown, and the next one instead of it.
    world.at_rest(seconds(20)).await;
    browser.click("#states button:nth-child(3)").await;
    let page = "return [...document.querySelectorAll('#list tbody button')].map(button => button.textContent)";
    let full = async |others: &Value| {
        testing::wait_until("a page is full", seconds(10), async || {
            let shown = browser.script(page).await;
            shown.as_array().is_some_and(|rows| rows.len() == 50) && shown != *others
        })
        .await;
        browser.script(page).await
    };
    let newest = full(&json!(null)).await;
    browser.click("#older").await;
    let older = full(&newest).await;
    assert!(older.as_array().unwrap().iter().all(|order| !newest.as_array().unwrap().contains(order)));
    browser.click("#newer").await;
    assert_eq!(full(&older).await, newest);
    assert_eq!(browser.console().await, [] as [String; 0]);
    assert_eq!(browser.origins().await, [one.api()].into());
    browser.close().await;
    world.at_rest(seconds(20)).await;
    assert_eq!(one.stop().await, Some(0));
    world.judge().await;
}
