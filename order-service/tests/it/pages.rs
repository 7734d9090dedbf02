//! The page of operators, in a real browser.

use testing::Browser;

use crate::{messages::failed_and_published, world::seconds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_failed_messages_and_sends_one_again_and_then_all() {
    let (world, service, _) = failed_and_published(5, 8).await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/operations", service.api())).await;
    browser.shows("#strip", seconds(15), |text| text.contains("Failed\n5") && text.contains("Takes all")).await;
    browser.shows("#list tbody", seconds(5), |text| text.matches("ORDER_CREATED").count() == 5).await;
    browser.pictures("outbox").await;

    browser.click("#list tbody tr:first-child button").await;
    browser.shows("#opened", seconds(5), |text| text.contains("Last error")).await;
    browser.pictures("outbox-message").await;
    // What is open is in the address.
    let opened = browser.text("#opened h2").await;
    browser.reload().await;
    browser.shows("#opened h2", seconds(5), |text| text == opened).await;
    browser.click("#opened header button.primary").await;
    browser.shows("dialog", seconds(5), |text| text.contains(&opened)).await;
    browser.click("dialog button.primary").await;
    browser.shows("#done", seconds(5), |text| text == "It will be sent.").await;
    browser.shows("#strip", seconds(15), |text| text.contains("Failed\n4")).await;

    browser.click("#all").await;
    browser.shows("dialog", seconds(5), |text| text.starts_with("Send failed messages again?\n4 messages")).await;
    browser.click("dialog button[type=button]").await;
    assert_eq!(world.count("failed").await, 4, "nothing is done without consent");
    browser.click("#all").await;
    browser.click("dialog button.primary").await;
    browser.shows("#done", seconds(5), |text| text == "4 will be sent.").await;
    browser.shows("#list", seconds(15), |text| text.contains("Nothing has failed.")).await;
    world.at_rest(seconds(10)).await;
    browser.click("#states button:nth-child(3)").await;
    let rows = "return document.querySelectorAll('#list tbody tr').length";
    testing::wait_until("all are announced", seconds(10), async || browser.script(rows).await == 13).await;
    assert_eq!(browser.console().await, [] as [String; 0]);
    assert_eq!(browser.origins().await, [service.api()].into());
    browser.close().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}
