//! The pages, in a real browser.

use std::time::Duration;

use reqwest::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH};
use serde_json::json;
use testing::{Browser, CLIENT_ID, SignIn, Signer, announcement, wait_until};
use time::OffsetDateTime;

use crate::{
    shop::Shop,
    world::{World, client, created, seconds},
};

/// What people wait for a placed order to show, at most.
const SOON: Duration = Duration::from_secs(2);

/// What a browser says of a service that is away.
fn is_outage(line: &str) -> bool {
    line.contains("ERR_CONNECTION_REFUSED") || line.contains("ERR_CONNECTION_RESET") || line.contains("503")
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
    browser.pictures("figures-empty").await;

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
    let told = browser.console().await;
    assert!(told.iter().all(|line| is_outage(line)), "{told:?}");
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
    browser.pictures("figures").await;

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
    browser.pictures("figures-hours").await;

    browser.click("[data-view=table]").await;
    browser.click("[data-span='90']").await;
    browser.click("[data-type=ORDER_COMPLETED]").await;
    browser.shows("#of-what", seconds(5), |text| text == "Order Completed").await;
    let rows = "return document.querySelectorAll('#table tbody tr').length";
    wait_until("a row a day", seconds(5), async || browser.script(rows).await == json!(90)).await;
    browser.pictures("figures-table").await;
    browser.script("history.back(); history.back(); history.back()").await;
    browser.shows("#of-what", seconds(5), |text| text == "Order Created").await;
    assert_eq!(browser.console().await, [] as [String; 0]);
    assert_eq!(browser.origins().await, [service.api()].into());

    browser.close().await;
    world.database.execute("DELETE FROM daily_activity_shards").await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

/// Holds: No text of a message or of a caller becomes markup in a page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_looks_at_quarantined_bytes_replays_and_discards() {
    let (world, signer) = (World::new(1).await, Signer::es256("pages"));
    let markup = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>";
    let eaten = || announcement("ORDER_EATEN", "2026-11-20T12:00:00Z").with_field("note", markup);
    world.produce(&[created(), created().with_value(markup), eaten(), eaten()]).await;
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
    browser.pictures("quarantine").await;

    // What somebody sent is text, and stays text.
    browser.click("#list tbody tr:first-child button").await;
    browser.shows("#opened pre", seconds(5), |text| text == markup).await;
    let hex = "return [...document.querySelectorAll('#opened button')].find(b => b.textContent === 'Hex').click()";
    browser.script(hex).await;
    browser.shows("#opened pre", seconds(5), |text| text.starts_with("000000  3c 69 6d 67")).await;
    browser.pictures("quarantine-bytes").await;
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
    browser.click("#all").await;
    browser
        .shows("dialog", seconds(5), |text| text.contains("2 would be counted, 0 were counted before, 0 would stay."))
        .await;
    browser.pictures("quarantine-question").await;
    browser.click("dialog button.primary").await;
    browser.shows("#done", seconds(10), |text| text.starts_with("2 counted")).await;
    browser.shows("#list", seconds(10), |text| text.contains("Nothing waits")).await;
    assert_eq!(world.counted().await, 3);
    browser.click("#audit summary").await;
    let told = |text: &str| text.contains("quarantine discarded") && text.contains("no message at all");
    browser.shows("#audited", seconds(5), told).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_sign_in_at_the_issuer_and_come_back_to_the_day_they_looked_at() {
    let (world, signer) = (World::new(1).await, Signer::es256("pages"));
    let issuer = SignIn::start(signer.token(json!({ "scope": "activity:read" }))).await;
    let setup = world.setup().trusting(&signer).set("pages.oidc.issuer", &issuer.issuer);
    let service = setup.set("pages.oidc.client_id", CLIENT_ID).start().await;
    let browser = Browser::start().await;
    let address = format!("{}/?day=2026-11-20", service.api());
    browser.open(&address).await;
    browser.shows("#signin", seconds(10), |text| text.contains("Sign in with 127.0.0.1:")).await;
    browser.pictures("sign-in").await;
    browser.click("#signin > button").await;
    browser
        .shows("#title", seconds(10), |text| text.contains("20 November 2026") || text.contains("November 20, 2026"))
        .await;
    assert_eq!((browser.url().await.as_str(), issuer.granted()), (address.as_str(), 1));
    browser.shows("#account", seconds(5), |text| text.contains("tester")).await;

    // A code that somebody else has begun with is not taken.
    browser.click("#account button").await;
    browser.open(&format!("{}/?code=the-code&state=of-another", service.api())).await;
    browser
        .shows("#signin", seconds(10), |text| text.contains("Signing in failed: it was not begun in this tab."))
        .await;
    assert_eq!((browser.url().await.query(), issuer.granted()), (None, 1));
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
        let again = ask.ask(reqwest::Method::GET, path, &[(IF_NONE_MATCH.as_str(), &tag)], Vec::new()).await.unwrap();
        assert_eq!((again.status, again.bytes.len()), (304, 0), "{path}");
        bytes += answer.bytes.len();
    }
    assert!(bytes < 150_000, "{bytes}");
    assert_eq!(ask.get("/pages/other.js").await.status, 401);
    assert_eq!(ask.post("/", &json!({})).await.unwrap().status, 405);
    let told = ask.get("/pages/settings.json").await.body;
    assert_eq!((&told["needsToken"], &told["timeZone"], &told["oidc"]), (&json!(true), &json!("UTC"), &json!(null)));
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
