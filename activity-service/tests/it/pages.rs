//! The pages, in a real browser.

use std::time::Duration;

use reqwest::{
    Method,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH},
};
use serde_json::json;
use testing::{Browser, CLIENT_ID, Proxy, Service, SignIn, Signer, announcement, wait_until};
use time::OffsetDateTime;

use crate::{
    shop::Shop,
    world::{World, client, created, seconds},
};

/// What people wait for a placed order to show, at most.
const SOON: Duration = Duration::from_secs(2);

/// What a browser says of a service that is away.
fn is_outage(line: &str) -> bool {
    line.contains("net::ERR_") || line.contains("503")
}

/// As often as the day has changed meanwhile, which moves orders to yesterday.
fn today() -> String {
    OffsetDateTime::now_utc().date().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_shows_by_itself_and_the_page_goes_on_after_a_restart() {
    let (shop, signer) = (Shop::new().await, Signer::es256("pages"));
    let counting = shop.activity.setup().trusting(&signer);
    let (service, ordering) = tokio::join!(counting.start(), async { shop.ordering().trusting(&signer).start().await });
    let token = signer.token(json!({}));
    let shopping = shop.client(&ordering).bearing(&token);
    let browser = Browser::start().await;

    // Without a token nothing is shown; the address with one is made one without.
    browser.open(&service.api()).await;
    browser.shows("#signin h1", seconds(10), |text| text == "Sign in").await;
    assert_eq!(browser.text("#content").await, "");
    browser.open(&format!("{}/?days=7#token={token}", service.api())).await;
    browser.reload().await;
    browser.shows("#empty", seconds(10), |text| text.contains("/orders")).await;
    assert_eq!(browser.url().await.as_str(), format!("{}/?days=7", service.api()));
    let kept = browser.script("return [JSON.stringify(localStorage), document.cookie]").await;
    assert_eq!(kept, json!(["{}", ""]));
    browser.is_for_everybody("figures-empty").await;

    for number in ["1", "2"] {
        let begin = std::time::Instant::now();
        shopping.place_one().await;
        browser.shows("#number", SOON, |text| text == number).await;
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    }
    assert_eq!(browser.console().await, [] as [String; 0]);
    assert_eq!(browser.origins().await, [service.api()].into());

    // Gone and back at the same place.
    let at = service.api().replace("http://", "");
    assert_eq!(service.stop().await, Some(0));
    browser.shows("#status", seconds(10), |text| text.contains("cannot be reached")).await;
    // Whoever hears the page is told of the last number, however soon it came after another.
    let announced = "return document.querySelector('#announcement').textContent";
    wait_until("the last number is announced", seconds(20), async || {
        browser.script(announced).await == "Order Created: 2"
    })
    .await;
    let service = counting.set("http.bind", &at).start().await;
    shopping.place_one().await;
    browser.shows("#number", seconds(25), |text| text == "3").await;
    browser.shows("#status", seconds(5), |text| text.starts_with("Live")).await;
    let told = browser.console().await;
    assert!(told.iter().all(|line| is_outage(line)), "{told:?}");

    browser.close().await;
    assert_eq!((ordering.stop().await, service.stop().await), (Some(0), Some(0)));
    shop.judge(|checker| checker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_told_while_somebody_looks_and_asked_for_where_there_is_no_stream_to_be_had() {
    let world = World::new(1).await;
    let of_today = || announcement("ORDER_CREATED", &format!("{}T00:00:00Z", today()));
    world.produce(&[of_today()]).await;
    let service = world.setup().start().await;
    let browser = Browser::start().await;
    browser.open(&service.api()).await;
    browser.shows("#number", seconds(20), |text| text == "1").await;
    let open = async |count: f64| {
        wait_until("the streams", seconds(10), async || service.metrics().await.sum("activity_open_streams") == count)
            .await;
    };
    open(1.0).await;
    // One asks for nothing meanwhile that the other tells.
    let asked = "return performance.getEntriesByType('resource').filter(one => /activities(\\/today|\\?)/.test(one.name)).length";
    let before = browser.script(asked).await;
    world.produce(&[of_today()]).await;
    browser.shows("#number", seconds(20), |text| text == "2").await;
    assert_eq!(browser.script(asked).await, before);
    browser.press(&["\u{e012}"]).await;
    browser.shows("#number", seconds(5), |text| text == "0").await;
    open(1.0).await;

    // Nobody looks, then somebody does.
    let hide = |hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ configurable: true, value: {hidden} }});
             document.dispatchEvent(new Event('visibilitychange'))"
        )
    };
    browser.script(&hide(true)).await;
    open(0.0).await;
    browser.script(&hide(false)).await;
    open(1.0).await;
    assert_eq!(browser.console().await, [] as [String; 0]);
    assert_eq!(service.stop().await, Some(0));

    let service = world.setup().set("http.max_streams", 0).start().await;
    browser.open(&service.api()).await;
    browser.shows("#number", seconds(20), |text| text == "2").await;
    world.produce(&[of_today()]).await;
    browser.shows("#number", seconds(20), |text| text == "3").await;
    // An answer of something in between, and one that makes no sense: either is told, and asked for again.
    for answer in ["<html>", "null"] {
        let spoil = format!(
            "const ask = window.fetch;
             const isSpoilt = (path) => /^activities(\\/today|\\?)/.test(path);
             window.fetch = (path, how) => isSpoilt(path) ? Promise.resolve(new Response('{answer}')) : ask(path, how);
             window.mend = () => {{ window.fetch = ask; }}"
        );
        browser.script(&spoil).await;
        browser.shows("#status", seconds(10), |text| text.contains("Trying again")).await;
        browser.script("window.mend()").await;
        browser.shows("#status", seconds(10), |text| text.starts_with("Live")).await;
    }
    let told = browser.console().await;
    assert!(told.iter().all(|line| is_outage(line) || line.contains("TypeError")), "{told:?}");
    browser.close().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chosen_day_is_in_the_address_and_survives_a_reload() {
    let world = World::new(1).await;
    let service = world.setup().start().await;
    // Without messages: the figures alone are what is looked at.
    let figures = format!(
        "INSERT INTO daily_activity_shards (activity_date, activity_type_code, shard, quantity)
         SELECT '{today}'::date - d, code, 0, n * (900 + 300 * abs(sin(d)) + 40 * (d % 7))::bigint / 10
         FROM generate_series(0, 120) AS d, (VALUES ('ORDER_CREATED', 10), ('ORDER_COMPLETED', 8), ('ORDER_CANCELLED', 1)) AS t (code, n)",
        today = today()
    );
    world.database.execute(&figures).await;
    let browser = Browser::start().await;
    browser.open(&service.api()).await;
    browser.shows("#title", seconds(10), |text| text.starts_with("Today")).await;
    browser.shows("#number", seconds(10), |text| text == "900").await;
    browser.is_for_everybody("figures").await;
    // A day that there can be no figures of is today.
    browser.open(&format!("{}/?day=9999-12-31", service.api())).await;
    browser.shows("#title", seconds(10), |text| text.starts_with("Today")).await;
    browser.shows("#number", seconds(10), |text| text == "900").await;

    let days = [1, 2].map(|back| (OffsetDateTime::now_utc() - time::Duration::days(back)).date().to_string());
    browser.press(&["\u{e012}", "\u{e012}"]).await;
    let chosen = format!("day={}", days[1]);
    wait_until("the address tells the day", seconds(5), async || browser.url().await.query() == Some(&chosen)).await;
    let shown = browser.text("#title").await;
    assert!(!shown.starts_with("Today"), "{shown}");
    browser.reload().await;
    browser.shows("#title", seconds(10), |text| text == shown).await;
    browser.press(&["\u{e014}"]).await;
    wait_until("the day after", seconds(5), async || browser.url().await.query() == Some(&format!("day={}", days[0])))
        .await;

    // The hours of the day, some of them from before hours were kept.
    let hours = format!(
        "INSERT INTO hourly_activity_shards SELECT '{}'::date + make_interval(hours => h), 'ORDER_CREATED', 0, 10 + h
         FROM generate_series(0, 23) AS h",
        days[0]
    );
    world.database.execute(&hours).await;
    browser.click("[data-view=hours]").await;
    browser
        .shows("#readout", seconds(10), |text| {
            text.starts_with("516 in 24 hours") && text.contains("the hour is not known")
        })
        .await;
    browser.is_for_everybody("figures-hours").await;

    browser.click("[data-view=table]").await;
    browser.click("[data-span='90']").await;
    browser.click("[data-type=ORDER_COMPLETED]").await;
    browser.shows("#of-what", seconds(5), |text| text == "Order Completed").await;
    let rows = "return document.querySelectorAll('#table tbody tr').length";
    wait_until("a row a day", seconds(5), async || browser.script(rows).await == json!(90)).await;
    browser.is_for_everybody("figures-table").await;
    let (name, lines) = saved(&browser).await;
    assert!(name.starts_with("figures-") && name.ends_with(&format!("-{}.csv", today())), "{name}");
    let columns =
        "day,ORDER_CREATED,ORDER_COMPLETED,ORDER_CANCELLED,ORDER_CREATED.lateQuantity,ORDER_CREATED.missingQuantity,";
    assert!(lines.len() == 91 && lines[0].starts_with(columns), "{lines:?}");
    assert_eq!(lines[90], format!("{},900,720,90,0,0,0,0,0,0", today()));
    browser.script("history.back(); history.back(); history.back()").await;
    browser.shows("#of-what", seconds(5), |text| text == "Order Created").await;
    assert_eq!(browser.console().await, [] as [String; 0]);
    assert_eq!(browser.origins().await, [service.api()].into());

    browser.close().await;
    world.database.execute("DELETE FROM daily_activity_shards").await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

/// What is shown, as a file for a spreadsheet: its name, and its lines.
async fn saved(browser: &Browser) -> (String, Vec<String>) {
    let saved = "let saved;
        HTMLAnchorElement.prototype.click = function () { saved = [this.download]; };
        const make = URL.createObjectURL;
        let file;
        URL.createObjectURL = (blob) => { file = blob; return make.call(URL, blob); };
        document.querySelector('#csv').click();
        URL.createObjectURL = make;
        return file.text().then((text) => [...saved, text])";
    let saved = browser.script(saved).await;
    let text = saved[1].as_str().unwrap();
    (saved[0].as_str().unwrap().to_owned(), text.trim_end().split("\r\n").map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_that_is_not_complete_says_why_and_where_it_can_be_mended() {
    let (world, signer) = (World::new(1).await, Signer::es256("pages"));
    world.produce(&[announcement("ORDER_EATEN", "2026-11-20T12:00:00Z")]).await;
    let outbox = "http://127.0.0.1:1";
    let setup = world.setup().trusting(&signer).set("pages.peer_url", outbox).set("metrics.database_every", "100ms");
    let service = setup.start().await;
    world.at_rest().await;
    // What a source has told, and was found of it.
    let yesterday = (OffsetDateTime::now_utc() - time::Duration::days(1)).date();
    let told = format!(
        r#"
        INSERT INTO sources (source, topic, announced_to, counted_to, unannounced, oldest_unannounced_at, failed, discarded,
            told_at, told_offset)
        VALUES ('/order-service', '{topic}', now(), now(), 3, now() - interval '5 minutes', 2, 0,
            now() - interval '2 minutes', 0);
        INSERT INTO source_minutes (source, minute, quantities, checked_at, counted)
        VALUES ('/order-service', '{yesterday} 12:00Z', '{{"ORDER_CREATED": 20, "ORDER_CANCELLED": 4}}', now(), '{{"ORDER_CREATED": 17}}');
        INSERT INTO consumption_gaps (topic, partition, from_offset, to_offset, state) VALUES ('{topic}', 0, 7, 9, 'open');
        INSERT INTO complete_days (activity_date, quantities) VALUES ('{yesterday}', '{{"ORDER_CREATED": 30}}');
        INSERT INTO daily_activity_shards (activity_date, activity_type_code, shard, quantity)
        VALUES ('{yesterday}', 'ORDER_CREATED', 0, 41)"#,
        topic = world.topic().name
    );
    world.database.execute(&told).await;

    // Whoever may only look is led nowhere.
    let browser = Browser::start().await;
    let analyst = signer.token(json!({ "scope": "activity:read" }));
    browser.open(&format!("{}/?day={yesterday}#token={analyst}", service.api())).await;
    let all: &[&str] = &[
        "order-service has told nothing since",
        "3 not announced yet, the oldest of",
        "2 failed to be announced.",
        "1 in quarantine",
        "1 open gap in what was read",
        ", 20 of Order Created were written, and 17 are counted.",
        "11 of Order Created came after the day was complete.",
    ];
    browser.shows("#why", seconds(15), has(all)).await;
    browser.shows("#complete", seconds(5), |text| text == "Not known to be complete").await;
    let links = "return [...document.querySelectorAll('#why a')].map(link => link.getAttribute('href'))";
    assert_eq!(browser.script(links).await, json!([]));

    let operator = signer.token(json!({}));
    browser.open(&format!("{}/?day={yesterday}&view=table#token={operator}", service.api())).await;
    browser.reload().await;
    browser.shows("#why", seconds(15), has(all)).await;
    let failed = format!("{outbox}/operations");
    let led = json!([format!("{failed}?state=unpublished"), failed, "operations", "operations"]);
    assert_eq!(browser.script(links).await, led);
    // Late and missing are marked where they are, also of a type of which nothing came.
    browser.shows("#table", seconds(5), |text| text.contains("3 missing, 11 late, 41")).await;
    browser.shows("#table", seconds(5), |text| text.contains("4 missing, 0")).await;
    let (_, lines) = saved(&browser).await;
    assert!(lines.contains(&format!("{yesterday},41,0,0,11,3,0,0,0,4")), "{lines:?}");
    browser.is_for_everybody("figures-behind").await;
    browser.click("[data-view=bars]").await;
    let marks = "return ['late', 'missing'].map(mark => document.querySelectorAll('#bars .' + mark).length)";
    wait_until("both are marked", seconds(5), async || browser.script(marks).await == json!([1, 1])).await;
    browser.is_for_everybody("figures-late").await;

    // Where it leads to there is more than a number.
    browser.open(&format!("{}/operations", service.api())).await;
    browser.shows("#gap-list", seconds(10), has(&["/ 0", "7 – 8", "2 messages"])).await;
    browser.is_for_everybody("quarantine-gaps").await;
    browser.open(&format!("{}/", service.api())).await;

    // The day that runs is held up as well, and is not when it is mended.
    browser.shows("#why", seconds(15), has(&all[..5])).await;
    let state = "return document.querySelector('#complete').dataset.state";
    assert_eq!(browser.script(state).await, "behind");
    let mended = "UPDATE sources SET told_at = now() + interval '1 hour', failed = 0, unannounced = 0, oldest_unannounced_at = NULL,
            counted_to = now();
        DELETE FROM consumption_gaps;
        UPDATE quarantine SET (state, resolved_at, resolved_by, resolution) = ('discarded', now(), 'x', 'x')";
    world.database.execute(mended).await;
    browser.shows("#why", seconds(20), str::is_empty).await;
    assert_eq!(browser.script(state).await, "open");
    browser.shows("#complete", seconds(5), |text| text.starts_with("Complete up to ")).await;

    // Since when counting rests, or announcing, is told with its day and, where it is pointed at, in UTC.
    let rests_since = (OffsetDateTime::now_utc() - time::Duration::hours(30)).year().to_string();
    for (announced_to, why, at) in [
        ("now()", "Counting is paused or behind: order-service has announced up to ", "operations".to_owned()),
        ("counted_to", "Announcing is paused or behind: order-service has ", format!("{failed}?state=unpublished")),
    ] {
        let rests = "UPDATE sources SET counted_to = now() - interval '30 hours'";
        world.database.execute(rests).await;
        world.database.execute(&format!("UPDATE sources SET announced_to = {announced_to}")).await;
        browser.shows("#why", seconds(20), |text| text.starts_with(why)).await;
        browser.shows("#complete", seconds(5), |text| text.contains(&rests_since)).await;
        assert_eq!((browser.script(state).await, browser.script(links).await), (json!("behind"), json!([at])));
        let utc = "return ['#complete', '#why span', '#status-text'].map(place => document.querySelector(place).title)";
        let utc = browser.script(utc).await;
        assert!(utc.as_array().unwrap().iter().all(|text| text.as_str().unwrap().ends_with('Z')), "{utc}");
    }
    // Nobody is at the address of the other service.
    let told = browser.console().await;
    assert!(told.iter().all(|line| is_outage(line)), "{told:?}");
    browser.close().await;
    assert_eq!(service.stop().await, Some(0));
    world
        .database
        .execute("DELETE FROM daily_activity_shards; DELETE FROM complete_days; DELETE FROM source_minutes")
        .await;
    world.judge().await;
}

/// Holds: No text of a message or of a caller becomes markup in a page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_looks_at_quarantined_bytes_replays_and_discards() {
    let (world, signer) = (World::new(1).await, Signer::es256("pages"));
    let markup = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>";
    let eaten = || announcement("ORDER_EATEN", "2026-11-20T12:00:00Z").with_field("note", markup);
    world.produce(&[created(), created().with_value(markup).with_header(markup, markup), eaten(), eaten()]).await;
    let service = world.setup().trusting(&signer).set("metrics.database_every", "100ms").start().await;
    world.at_rest().await;
    let browser = Browser::start().await;

    // An analyst sees nothing of it.
    let analyst = signer.token(json!({ "scope": "activity:read" }));
    browser.open(&format!("{}/operations#token={analyst}", service.api())).await;
    browser.shows("#signin", seconds(10), |text| text.contains("the scope operations")).await;
    assert_eq!(browser.text("#content").await, "");
    assert_eq!(browser.console().await, [] as [String; 0]);

    let token = signer.token(json!({}));
    browser.enter("#token", &format!("Bearer {token}")).await;
    browser.click("#signin form button").await;
    browser.shows("#strip", seconds(10), |text| text.contains("In quarantine\n3")).await;
    browser.shows("#list tbody", seconds(5), |text| text.matches("unknown type").count() == 2).await;
    browser.is_for_everybody("quarantine").await;
    // Some of them: by type, by topic, and by a tick.
    let shown = async |rows: usize| {
        let count = "return document.querySelectorAll('#list tbody tr').length";
        wait_until(&format!("{rows} are listed"), seconds(10), async || browser.script(count).await == rows).await;
    };
    browser.enter("#type", "order_eaten\u{e007}").await;
    shown(2).await;
    browser.click("#list tbody tr:last-child input").await;
    browser.shows("#discard-all", seconds(5), |text| text == "Discard 1 …").await;
    browser.click("#all").await;
    browser
        .shows("dialog", seconds(10), |text| text.contains("0 would be counted, 0 were counted before, 1 would stay"))
        .await;
    browser.click("dialog button[type=button]").await;
    browser.enter("#topic", "another\u{e007}").await;
    shown(0).await;
    browser.shows("#list", seconds(5), |text| text == "There is none.").await;
    browser.script("history.back(); history.back()").await;
    shown(3).await;

    // What somebody sent is text, and stays text.
    browser.click("#list tbody tr:first-child button").await;
    browser.shows("#opened pre", seconds(5), |text| text == markup).await;
    let hex = "return [...document.querySelectorAll('#opened button')].find(b => b.textContent === 'Hex').click()";
    browser.script(hex).await;
    browser.shows("#opened pre", seconds(5), |text| text.starts_with("000000  3c 69 6d 67")).await;
    browser.shows("#opened .headers", seconds(5), |text| text.contains(&format!("{markup}\n{markup}"))).await;
    browser.is_for_everybody("quarantine-bytes").await;
    assert_eq!(browser.script("return [document.title, document.images.length]").await, json!(["Quarantine", 1]));

    // By keys alone: discarded, with a reason.
    let discard = "[...document.querySelectorAll('#opened header button')].find(b => b.textContent.startsWith('Discard')).focus()";
    browser.script(discard).await;
    browser.press(&["\u{e007}"]).await;
    browser.shows("dialog", seconds(5), |text| text.contains("never be counted")).await;
    browser.enter("#reason", "no message at all").await;
    browser.press(&["\u{e007}"]).await;
    browser.shows("#done", seconds(5), |text| text == "Discarded.").await;
    browser.shows("#strip", seconds(10), |text| text.contains("In quarantine\n2")).await;
    let discarded = client(&service).bearing(&token).get("/admin/quarantine?state=discarded").await.body;
    assert_eq!(
        (&discarded[0]["resolution"], &discarded[0]["resolvedBy"]),
        (&json!("no message at all"), &json!("tester"))
    );

    // A type that was registered meanwhile: counted at once, on request.
    let insert =
        "INSERT INTO activity_types (activity_type_code, activity_type_name) VALUES ('ORDER_EATEN', 'Order Eaten')";
    world.database.execute(insert).await;
    // Each that is ticked is tried alone; what they would change is told together.
    browser.click("#list thead input").await;
    browser.click("#all").await;
    browser.shows("dialog", seconds(5), has(&["2 would be counted", ": 2 more of ORDER_EATEN"])).await;
    browser.click("dialog button[type=button]").await;
    browser.click("#list thead input").await;
    browser.click("#all").await;
    browser
        .shows("dialog", seconds(5), |text| text.contains("2 would be counted, 0 were counted before, 0 would stay."))
        .await;
    browser.is_for_everybody("quarantine-question").await;
    browser.enter("#reason", "the type is known now").await;
    browser.click("dialog button.primary").await;
    browser.shows("#done", seconds(10), |text| text.starts_with("2 counted")).await;
    browser.shows("#list", seconds(10), |text| text.contains("Nothing waits")).await;
    assert_eq!(world.counted().await, 3);
    browser.click("#audit summary").await;
    let told = ["quarantine discarded", "no message at all", "replayed: the type is known now"];
    browser.shows("#audited", seconds(5), has(&told)).await;
    assert_eq!(browser.console().await, [] as [String; 0]);
    assert_eq!(browser.origins().await, [service.api()].into());

    // A token that has ended is asked for again.
    let short = signer.token(json!({ "exp": OffsetDateTime::now_utc().unix_timestamp() + 6 }));
    browser.open(&format!("{}/#token={short}", service.api())).await;
    browser.shows("#number", seconds(6), |text| text == "0").await;
    browser.shows("#signin", seconds(10), |text| text.contains("has ended")).await;
    assert_eq!(browser.console().await, [] as [String; 0]);

    browser.close().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Holds: What is done with many messages is done with those that were counted before somebody agreed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_agrees_agrees_to_what_was_counted_whatever_the_address_is_by_then() {
    let world = World::new(1).await;
    let eaten = || announcement("ORDER_EATEN", "2026-11-20T12:00:00Z");
    world.produce(&[created().with_value("no message"), eaten(), eaten()]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let browser = Browser::start().await;
    let narrowed = format!("{}/operations?reason=unknown_type", service.api());
    browser.open(&narrowed).await;
    browser.shows("#list tbody", seconds(10), |text| text.matches("unknown type").count() == 2).await;
    browser.script("history.pushState(null, '', 'operations?reason=unknown_type&type=ORDER_EATEN')").await;
    browser.click("#discard-all").await;
    browser.shows("dialog", seconds(10), |text| text.contains("2 messages will never be counted")).await;
    browser.script("history.back()").await;
    let is_gone = async || browser.script("return document.querySelector('dialog') === null").await == true;
    wait_until("the question is gone", seconds(5), is_gone).await;

    browser.click("#discard-all").await;
    browser.shows("dialog", seconds(10), |text| text.contains("2 messages will never be counted")).await;
    browser.script("history.replaceState(null, '', 'operations')").await;
    browser.enter("#reason", "eaten").await;
    browser.click("dialog button.primary").await;
    browser.shows("#done", seconds(10), |text| text == "2 discarded.").await;
    let waits = client(&service).get("/admin/quarantine").await.body;
    assert_eq!((waits.as_array().unwrap().len(), &waits[0]["reason"]), (1, &json!("not_json")));
    browser.close().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_sign_in_at_the_issuer_and_come_back_to_the_day_they_looked_at() {
    let (world, signer) = (World::new(1).await, Signer::es256("pages"));
    // The issuer gives roles, and scopes with a prefix.
    let of_role = json!({ "scope": "openid profile", "realm_access": { "roles": ["staff", "analyst"] } });
    let issuer = SignIn::start(signer.token(of_role)).await;
    let setup = world.setup().trusting(&signer).set("auth.scope_claims", "scope,realm_access.roles");
    let setup = setup.set("auth.role_scopes", "analyst=activity:read").set("auth.scope_prefix", "shop/");
    let setup = setup.set("pages.oidc.issuer", &issuer.issuer).set("pages.oidc.client_id", CLIENT_ID);
    let service = setup.start().await;
    let browser = Browser::start().await;
    let address = format!("{}/?day=2026-11-20", service.api());
    browser.open(&address).await;
    browser.shows("#signin", seconds(10), |text| text.contains("Sign in with 127.0.0.1:")).await;
    browser.is_for_everybody("sign-in").await;
    browser.click("#signin > button").await;
    browser
        .shows("#title", seconds(10), |text| text.contains("20 November 2026") || text.contains("November 20, 2026"))
        .await;
    assert_eq!((browser.url().await.as_str(), issuer.granted()), (address.as_str(), 1));
    assert_eq!(issuer.scope(), "openid shop/orders:read shop/activity:read shop/operations");
    browser.shows("#account", seconds(5), |text| text.contains("tester")).await;
    browser.shows("#number", seconds(10), |text| text == "0").await;

    // A code that somebody else has begun with is not taken.
    browser.click("#account button").await;
    browser.open(&format!("{}/?code=the-code&state=of-another", service.api())).await;
    browser
        .shows("#signin", seconds(10), |text| text.contains("Signing in failed: it was not begun in this tab."))
        .await;
    assert_eq!((browser.url().await.query(), issuer.granted()), (None, 1));
    // A pasted token is taken where the API takes it, and else not asked with.
    for (scope, place, shown) in
        [("activity:read", "#signin", "the scope activity:read"), ("shop/activity:read", "#title", "2026")]
    {
        let token = signer.token(json!({ "scope": scope }));
        // Of the same page only the part behind # would change.
        browser.open("about:blank").await;
        browser.open(&format!("{address}#token={token}")).await;
        browser.shows(place, seconds(10), |text| text.contains(shown)).await;
    }
    browser.shows("#number", seconds(10), |text| text == "0").await;
    // What the address of a page calls its state is none of the issuer's.
    let token = signer.token(json!({ "scope": "shop/operations" }));
    browser.open("about:blank").await;
    browser.open(&format!("{}/operations?state=discarded#token={token}", service.api())).await;
    browser.shows("#list", seconds(10), |text| text.contains("There is none.") || text.contains("Nothing")).await;
    assert_eq!(browser.url().await.query(), Some("state=discarded"));
    assert_eq!(browser.console().await, [] as [String; 0]);
    assert_eq!(browser.origins().await, [service.api(), issuer.issuer.clone()].into());
    browser.close().await;
    assert_eq!(service.stop().await, Some(0));

    let half = world.setup().set("pages.oidc.issuer", &issuer.issuer).run(&["config"]).await;
    let told = String::from_utf8(half.stderr).unwrap();
    assert_eq!(
        (half.status.code(), told.trim()),
        (Some(2), "pages.oidc.issuer, pages.oidc.client_id: both of them or none")
    );
    world.judge_nothing_counted().await;
}

#[tokio::test]
async fn pages_come_without_a_token_and_with_a_policy_unless_they_are_switched_off() {
    let (world, signer) = (World::new(1).await, Signer::es256("pages"));
    let service = world.setup().trusting(&signer).start().await;
    let ask = client(&service);
    let mut bytes = 0;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/operations", "text/html; charset=utf-8"),
        ("/pages/base.css", "text/css; charset=utf-8"),
        ("/pages/figures.js", "text/javascript; charset=utf-8"),
        ("/pages/icon.svg", "image/svg+xml"),
        ("/pages/settings.json", "application/json"),
    ] {
        let answer = ask.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, kind), "{path}");
        let policy = answer.header(CONTENT_SECURITY_POLICY.as_str());
        assert!(
            policy.starts_with("default-src 'self'; connect-src 'self';") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(answer.header(CACHE_CONTROL.as_str()), "no-cache");
        let tag = answer.header(ETAG.as_str()).to_owned();
        let again = ask.ask(Method::GET, path, &[(IF_NONE_MATCH.as_str(), &tag)], Vec::new()).await.unwrap();
        assert_eq!((again.status, again.bytes.len()), (304, 0), "{path}");
        bytes += answer.bytes.len();
    }
    assert!(bytes < 150_000, "{bytes}");
    assert_eq!(ask.get("/pages/other.js").await.status, 401);
    assert_eq!(ask.post("/", &json!({})).await.unwrap().status, 405);
    let told = ask.get("/pages/settings.json").await.body;
    assert_eq!((&told["needsToken"], &told["timeZone"], &told["oidc"]), (&json!(true), &json!("UTC"), &json!(null)));
    assert_eq!(told["scopes"], json!({ "claims": ["scope", "scp"], "prefix": null, "roles": {} }));
    assert_eq!(service.stop().await, Some(0));

    let service = world.setup().trusting(&signer).set("pages.enabled", false).start().await;
    for path in ["/operations", "/pages/base.css"] {
        assert_eq!(client(&service).get(path).await.status, 401, "{path}");
    }
    // The root leads to the documents then.
    assert_eq!(client(&service).get("/").await.status, 200);
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

/// Whether a text has all of these.
fn has<'a>(parts: &'a [&'a str]) -> impl Fn(&str) -> bool + use<'a> {
    move |text| parts.iter().all(|part| text.contains(part))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orders_way_is_one_on_the_page_of_either_service_and_half_where_the_other_is_away() {
    let (shop, signer) = (Shop::new().await, Signer::es256("pages"));
    let (counting, ordering) = (shop.activity.setup().trusting(&signer), shop.ordering().trusting(&signer));
    // One of the order's messages will not be counted.
    shop.activity.database.execute("DELETE FROM activity_types WHERE activity_type_code = 'ORDER_COMPLETED'").await;
    // Each knows where the other is.
    let first = ordering.start().await;
    let at = first.api();
    let activity = counting.set("pages.peer_url", &at).set("metrics.database_every", "100ms").start().await;
    assert_eq!(first.stop().await, Some(0));
    let ordering =
        ordering.set("http.bind", at.replace("http://", "")).set("pages.peer_url", format!("{}/", activity.api()));
    let orders = ordering.start().await;
    assert_eq!(orders.api(), at);
    let token = signer.token(json!({}));
    let shopping = shop.client(&orders).bearing(&token);
    let order = shopping.place_one().await;
    let message = shop.message_of(&order).await;
    assert_eq!(shopping.change(&order, "complete").await.unwrap().status, 200);
    shop.activity.has_counted(1, seconds(20)).await;
    wait_until("it is in quarantine", seconds(20), async || shop.activity.quarantined().await == 1).await;

    let whole: &[&str] =
        &["placed", "written", "acknowledged", "counted", "· order-service", "· activity-service", "for day"];
    let browser = Browser::start().await;
    browser.open(&format!("{}/operations#token={token}", orders.api())).await;
    // Both are in the strip of either.
    let of_both: &[&str] = &["Unannounced\n0", "Instances\n1", "In quarantine\n1", "Figures complete"];
    browser.shows("#strip", seconds(15), has(of_both)).await;
    browser.enter("#reference", &format!("{order}\u{e007}")).await;
    browser.shows("#way", seconds(10), has(whole)).await;
    browser.is_for_everybody("way").await;
    // From a message of its own.
    browser.open(&format!("{}/operations?state=published", orders.api())).await;
    browser.click("#list tbody button").await;
    browser.shows("#opened .way", seconds(10), has(whole)).await;
    assert_eq!(browser.console().await, [] as [String; 0]);

    // From the other page, by the order, by its message, and by one in quarantine that has its key.
    browser.open(&format!("{}/operations?way={}#token={token}", activity.api(), order.to_lowercase())).await;
    browser.shows("#way", seconds(10), has(whole)).await;
    browser.shows("#strip", seconds(10), has(of_both)).await;
    browser.open(&format!("{}/operations?way={message}", activity.api())).await;
    browser.shows("#way", seconds(10), has(whole)).await;
    browser.click("#list tbody button").await;
    browser.shows("#opened .way", seconds(10), has(&[whole, &["quarantined", "unknown type"]].concat())).await;
    browser.is_for_everybody("quarantine-way").await;
    assert_eq!(browser.console().await, [] as [String; 0]);
    assert_eq!(browser.origins().await, [activity.api(), orders.api()].into());

    // The other's page may read here, and change nothing; nobody else may read.
    let here = client(&activity).bearing(&token);
    let from = async |method: Method, origin: &str| {
        let path = if method == Method::GET { "/admin/overview" } else { "/admin/quarantine/replay" };
        let answer = here.ask(method, path, &[("origin", origin)], Vec::new()).await.unwrap();
        (answer.status, answer.header("access-control-allow-origin").to_owned())
    };
    assert_eq!(from(Method::GET, &orders.api()).await, (200, orders.api()));
    assert_eq!(from(Method::POST, &orders.api()).await.0, 403);
    assert_eq!(from(Method::GET, "http://127.0.0.1:1").await.1, "");
    assert_eq!(from(Method::POST, &activity.api()).await.0, 200, "its own page may");
    let policy = client(&activity).get("/operations").await;
    let policy = policy.header(CONTENT_SECURITY_POLICY.as_str());
    assert!(policy.contains(&format!("connect-src 'self' {};", orders.api())), "{policy}");

    // Each half alone.
    assert_eq!(orders.stop().await, Some(0));
    browser.open(&format!("{}/operations?way={message}", activity.api())).await;
    browser.shows("#way", seconds(10), has(&["The half of order-service is missing.", "counted"])).await;
    browser.shows("#strip", seconds(10), has(&["order-service", "No answer", "In quarantine\n1"])).await;
    browser.shows("#status", seconds(10), |text| text.starts_with("Live")).await;
    browser.open(&format!("{}/operations?way={order}", activity.api())).await;
    browser.shows("#way", seconds(10), has(&["Which messages an order has only order-service knows"])).await;
    let orders = ordering.start().await;
    assert_eq!(activity.stop().await, Some(0));
    browser.open(&format!("{}/operations?way={order}#token={token}", orders.api())).await;
    browser
        .shows("#way", seconds(10), has(&["The half of activity-service is missing.", "placed", "acknowledged"]))
        .await;
    browser.shows("#strip", seconds(10), has(&["activity-service", "No answer", "Unannounced\n0"])).await;
    let told = browser.console().await;
    assert!(told.iter().all(|line| is_outage(line)), "{told:?}");
    browser.close().await;
    assert_eq!(orders.stop().await, Some(0));
    shop.judge(|checker| checker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_mends_bytes_as_text_json_or_hex_and_sees_what_they_do_before_they_count() {
    let world = World::new(1).await;
    let broken = |byte: &[u8]| created().with_value([b"{\"number\": 12345678901234567890, ", byte].concat());
    world.produce(&[broken(b"\"open\": \"<b>"), broken(&[0xff, 0x00])]).await;
    let service = world.setup().set("metrics.database_every", "100ms").start().await;
    world.at_rest().await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/operations", service.api())).await;
    browser.click("#list tbody tr:first-child button").await;
    let press = async |selector: &str, name: &str| {
        let named = format!(
            "[...document.querySelectorAll('{selector} button')].find(b => b.textContent.startsWith('{name}')).click()"
        );
        browser.script(&named).await;
    };
    let written =
        async || browser.script("return document.querySelector('#edited').value").await.as_str().unwrap().to_owned();
    let write = async |text: &str| {
        browser.script("const edited = document.querySelector('#edited'); edited.focus(); edited.select()").await;
        browser.enter("#edited", text).await;
    };
    browser.shows("#opened .bytes pre", seconds(10), |text| text.ends_with("<b>")).await;
    press("#opened header", "Edit").await;
    assert!(written().await.ends_with("\"open\": \"<b>"));

    // What is none is said before anything is asked of the service; what cannot be counted by the service.
    press(".beside form", "Check").await;
    browser.shows(".beside .problem", seconds(10), |text| text.starts_with("This is no JSON")).await;
    press(".beside form .group", "Hex").await;
    assert!(written().await.starts_with("7b 22 6e 75 6d 62 65 72"), "{}", written().await);
    write("7b 2").await;
    press(".beside form .group", "Text").await;
    browser.shows(".beside .problem", seconds(10), |text| text.starts_with("This is no hex")).await;
    write("7b 7d").await;
    press(".beside form .group", "Text").await;
    assert_eq!(written().await, "{}");
    press(".beside form", "Check").await;
    browser
        .shows(".beside .problem", seconds(10), |text| text.contains("These bytes cannot be counted (bad_field)"))
        .await;
    assert_eq!((world.counted().await, world.kept("waiting").await), (0, 2));

    // A number that JavaScript cannot hold stays what it is.
    let mended = created().with_field("number", 12_345_678_901_234_567_890_u64).value.unwrap();
    write(std::str::from_utf8(&mended).unwrap()).await;
    press(".beside form .group", "JSON").await;
    let lines = written().await;
    assert!(lines.contains("\n  \"number\": 12345678901234567890"), "{lines}");
    press(".beside form", "Check").await;
    browser
        .shows("dialog", seconds(10), has(&["These bytes can be counted.", "20", "2026", "1 more of ORDER_CREATED"]))
        .await;
    assert_eq!((world.counted().await, world.kept("waiting").await), (0, 2), "nothing is done without consent");
    browser.is_for_everybody("quarantine-edit").await;
    browser.press(&["\u{e007}"]).await;
    assert_eq!(world.counted().await, 0, "a reason is required");
    browser.enter("#reason", "a brace was missing\u{e007}").await;
    browser.shows("#done", seconds(10), |text| text == "Counted.").await;
    browser.shows("#opened", seconds(10), has(&["As it came", "As it was counted", "a brace was missing"])).await;
    assert_eq!((world.counted().await, world.kept("waiting").await), (1, 1));
    let value = "SELECT convert_from(corrected_value, 'UTF8') = $$TEXT$$ AND convert_from(value, 'UTF8') LIKE '%<b>' FROM quarantine
        WHERE state = 'counted'";
    let is_kept: bool =
        sqlx::query_scalar(&value.replace("TEXT", &lines)).fetch_one(&world.database.pool).await.unwrap();
    assert!(is_kept, "as it was written, beside what came");

    // What is no text is edited as hex, and stays what it is.
    browser.click("#list tbody tr:first-child button").await;
    browser.shows("#opened .facts", seconds(10), |text| text.contains("waiting")).await;
    press("#opened header", "Edit").await;
    assert!(written().await.ends_with("ff 00"), "{}", written().await);
    press(".beside form .group", "Text").await;
    browser.shows(".beside .problem", seconds(10), |text| text == "These bytes cannot be written as Text.").await;
    assert!(written().await.ends_with("ff 00"));
    let told = browser.console().await;
    assert!(told.iter().all(|line| line.contains("422")), "{told:?}");
    assert_eq!(browser.origins().await, [service.api()].into());
    browser.close().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_is_done_by_keys_alone() {
    const ENTER: &str = "\u{e007}";
    let world = World::new(1).await;
    world.produce(&[announcement("ORDER_EATEN", "2026-11-20T12:00:00Z")]).await;
    let service = world.setup().set("metrics.database_every", "100ms").start().await;
    world.at_rest().await;
    let insert =
        "INSERT INTO activity_types (activity_type_code, activity_type_name) VALUES ('ORDER_EATEN', 'Order Eaten')";
    world.database.execute(insert).await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/operations", service.api())).await;
    browser.shows("#list tbody", seconds(10), |text| text.contains("unknown type")).await;
    // From the first link, past the bar, to the row, to what it opens, to its button.
    browser.tab_to("it.className === 'skip'").await;
    browser.press(&[ENTER]).await;
    browser.tab_to("it.closest('#list tbody') && it.tagName === 'BUTTON'").await;
    browser.press(&[ENTER]).await;
    browser.shows("#opened", seconds(10), |text| text.contains("As it came")).await;
    browser.tab_to("it.textContent.startsWith('Replay …')").await;
    browser.press(&[ENTER]).await;
    browser.shows("dialog", seconds(10), |text| text.contains("checked and counted like any message")).await;
    browser.tab_to("it.textContent === 'Leave it'").await;
    browser.press(&[ENTER]).await;
    assert_eq!((world.counted().await, world.kept("waiting").await), (0, 1));
    // The focus is where it was.
    let focused = browser.script("return document.activeElement.textContent").await;
    assert_eq!(focused, "Replay …");
    browser.press(&[ENTER]).await;
    browser.shows("dialog", seconds(10), |text| text.contains("checked and counted like any message")).await;
    browser.press(&["o", "k"]).await;
    browser.tab_to("it.textContent === 'Replay'").await;
    browser.press(&[ENTER]).await;
    browser.shows("#done", seconds(10), |text| text.starts_with("1 counted")).await;
    assert_eq!(browser.script("return document.querySelector('#done').getAttribute('role')").await, "status");
    assert_eq!(world.counted().await, 1);
    assert_eq!(browser.console().await, [] as [String; 0]);
    browser.close().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_cut_comes_back_and_the_page_has_kept_what_it_knew() {
    let world = World::new(1).await;
    let of = |day: time::Date| announcement("ORDER_CREATED", &format!("{day}T00:00:00Z"));
    let now = OffsetDateTime::now_utc().date();
    let yesterday = now.previous_day().unwrap();
    world.produce(&[of(yesterday), of(yesterday), of(yesterday), of(now)]).await;
    let setup = world.setup();
    let service = setup.start().await;
    let at = service.api().replace("http://", "");
    let proxy = Proxy::before(&at).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://127.0.0.1:{}/", proxy.port())).await;
    browser.shows("#number", seconds(20), |text| text == "1").await;
    let knows_yesterday = |text: &str| text.starts_with("Yesterday\n3");
    browser.shows("#against", seconds(10), knows_yesterday).await;
    let open = async |service: &Service| {
        wait_until("the stream", seconds(60), async || service.metrics().await.sum("activity_open_streams") == 1.0)
            .await;
    };
    open(&service).await;

    proxy.refuse();
    browser.shows("#status", seconds(20), |text| text.contains("cannot be reached")).await;
    assert_eq!(service.stop().await, Some(0));
    let service = setup.set("http.bind", &at).start().await;
    assert_eq!(browser.text("#number").await, "1");
    assert!(knows_yesterday(&browser.text("#against").await));
    proxy.pass();
    open(&service).await;
    // Told by itself is only what has changed: the rest is what the page has kept.
    let asked = "return performance.getEntriesByType('resource').filter(one => /activities\\?/.test(one.name)).length";
    browser.shows("#status", seconds(20), |text| text.starts_with("Live")).await;
    let before = browser.script(asked).await;
    world.produce(&[of(now)]).await;
    browser.shows("#number", seconds(20), |text| text == "2").await;
    assert!(knows_yesterday(&browser.text("#against").await), "{}", browser.text("#against").await);
    assert_eq!(browser.script(asked).await, before);
    let told = browser.console().await;
    assert!(told.iter().all(|line| is_outage(line)), "{told:?}");
    browser.close().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// The largest page may be as large as this, with all that it is made of.
const HEAVIEST: f64 = 150_000.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_page_is_light_and_soon_there() {
    let shop = Shop::new().await;
    let (counting, ordering) = shop.start().await;
    shop.client(&ordering).place_one().await;
    shop.is_counted(&counting, seconds(20)).await;
    let browser = Browser::start().await;
    let pages = [
        format!("{}/", counting.api()),
        format!("{}/operations", counting.api()),
        format!("{}/operations", ordering.api()),
    ];
    for page in pages {
        browser.open(&page).await;
        browser.shows("#status", seconds(20), |text| text.starts_with("Live")).await;
        let answered = "return performance.getEntriesByType('resource').some(one => !one.name.includes('/pages/') && one.responseEnd > 0)";
        wait_until("an answer is there in whole", seconds(20), async || browser.script(answered).await == true).await;
        let made_of = "const all = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource').filter(one => one.name.includes('/pages/'))];
            const [paint] = performance.getEntriesByName('first-contentful-paint');
            const told = performance.getEntriesByType('resource').filter(one => !one.name.includes('/pages/')).map(one => one.responseEnd);
            return [all.length, all.reduce((sum, one) => sum + one.decodedBodySize, 0), paint?.startTime ?? 0, Math.min(...told)]";
        let measured = browser.script(made_of).await;
        let [files, bytes, paint, told] = [0, 1, 2, 3].map(|index| measured[index].as_f64().unwrap());
        println!(
            "{page}: {bytes} bytes in {files} files; first paint after {paint:.0} ms, first answer after {told:.0} ms"
        );
        assert!(files > 10.0 && bytes > 10_000.0 && bytes < HEAVIEST, "{measured}");
    }
    browser.close().await;
    assert_eq!((ordering.stop().await, counting.stop().await), (Some(0), Some(0)));
    shop.judge(|checker| checker).await;
}
