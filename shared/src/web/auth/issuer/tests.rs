use serde_json::json;
use testing::{Signer, wait_until};

use super::*;
use crate::{
    runtime::health::Health,
    web::auth::token::{Refusal, Token},
};

const LONG: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(30);

/// Runs until it is dropped.
struct Running {
    known: Known,
    shutdown: Shutdown,
}

impl Running {
    fn start(issuer: &testing::Issuer, max_age: Duration, asked_every: Duration) -> Self {
        Self::with(issuer, max_age, LONG, asked_every)
    }

    fn with(issuer: &testing::Issuer, max_age: Duration, max_stale: Duration, asked_every: Duration) -> Self {
        let mut fetching = Issuer::new(issuer.url().parse().unwrap(), max_age, max_stale).unwrap();
        fetching.asked_every = asked_every;
        let (known, shutdown) = (fetching.known(), Shutdown::default());
        tokio::spawn(fetching.run(shutdown.clone(), Health::default().task("issuer")));
        Self { known, shutdown }
    }

    fn take(&self, signer: &Signer) -> Result<(), Refusal> {
        let text = signer.token(json!({}));
        let expected = crate::web::auth::tests::expected(0);
        let keys = self.known.keys().ok_or(Refusal::NoKeys)?;
        Token::parse(&text).unwrap().verify(&keys, &expected, 0).map(|_| ())
    }

    async fn takes(&self, signer: &Signer) {
        wait_until("its tokens are taken", LIMIT, async || self.take(signer).is_ok()).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.drain_now();
    }
}

#[tokio::test]
async fn a_storm_of_unknown_keys_asks_the_issuer_once() {
    let (old, stranger) = (Signer::es256("old"), Signer::es256("stranger"));
    let issuer = testing::Issuer::start(&[&old]).await;
    let running = Running::start(&issuer, LONG, LONG);
    running.takes(&old).await;
    assert_eq!(issuer.times_asked(), 1);
    let storm = (0..200).map(|_| {
        let known = running.known.clone();
        tokio::spawn(async move { known.looked_again().await })
    });
    for asking in storm.collect::<Vec<_>>() {
        asking.await.unwrap();
    }
    for _ in 0..200 {
        assert!(!running.known.looked_again().await);
    }
    assert_eq!(issuer.times_asked(), 2);
    assert_eq!(running.take(&stranger), Err(Refusal::UnknownKey));
}

#[tokio::test]
async fn a_new_key_is_taken_at_its_first_token_and_the_old_one_not_any_more() {
    let (old, new) = (Signer::rs256("old"), Signer::eddsa("new"));
    let issuer = testing::Issuer::start(&[&old]).await;
    let running = Running::start(&issuer, LONG, LONG);
    running.takes(&old).await;
    issuer.publish(&[&new]);
    assert_eq!(running.take(&new), Err(Refusal::UnknownKey));
    assert!(running.known.looked_again().await);
    assert_eq!(running.take(&new), Ok(()));
    assert_eq!(running.take(&old), Err(Refusal::UnknownKey));
}

#[tokio::test]
async fn old_keys_are_fetched_again_by_themselves() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let issuer = testing::Issuer::start(&[&old]).await;
    let running = Running::start(&issuer, Duration::from_millis(50), LONG);
    running.takes(&old).await;
    issuer.publish(&[&old, &new]);
    running.takes(&new).await;
    // The same answer leaves the keys as they are, with what is known to be good by them.
    let keys = running.known.keys().unwrap();
    let asked = issuer.times_asked();
    wait_until("it is asked again", LIMIT, async || issuer.times_asked() > asked + 1).await;
    assert!(Arc::ptr_eq(&keys, &running.known.keys().unwrap()));
}

#[tokio::test]
async fn the_last_good_keys_stay_whatever_the_issuer_answers() {
    let good = Signer::es256("good");
    let issuer = testing::Issuer::start(&[&good]).await;
    let running = Running::start(&issuer, Duration::from_millis(20), Duration::ZERO);
    running.takes(&good).await;
    let others = json!({"keys": [Signer::es256("other").jwk()]});
    let (elsewhere, mut huge) = (others.to_string(), others);
    huge["noise"] = "x".repeat(ANSWER_LIMIT).into();
    let huge = huge.to_string();
    for (status, body) in
        [(200, "nonsense"), (200, ""), (200, "{}"), (200, &huge), (500, "{}"), (302, &elsewhere), (404, &elsewhere)]
    {
        issuer.answer(status, body);
        let asked = issuer.times_asked();
        wait_until("it is asked again", LIMIT, async || {
            running.known.looked_again().await;
            issuer.times_asked() > asked + 1
        })
        .await;
        assert_eq!(running.take(&good), Ok(()), "{status} {body:.40}");
    }
    drop(issuer);
    running.known.looked_again().await;
    assert_eq!(running.take(&good), Ok(()), "the issuer is gone");
}

/// Holds: A key that the issuer does not publish any more is good no longer, whatever else it publishes.
#[tokio::test]
async fn a_set_without_a_key_that_can_be_used_takes_every_key_back_until_there_are_new_ones() {
    takes_every_key_back(r#"{"keys":[]}"#).await;
    // One that is too weak, and one that is for encryption.
    takes_every_key_back(r#"{"keys":[{"kty":"RSA","kid":"old","n":"AQAB","e":"AQAB"}]}"#).await;
    takes_every_key_back(r#"{"keys":[{"kty":"oct","kid":"old","use":"enc","k":"AQAB"}]}"#).await;
}

async fn takes_every_key_back(set: &str) {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let issuer = testing::Issuer::start(&[&old]).await;
    let running = Running::start(&issuer, Duration::from_millis(20), Duration::ZERO);
    running.takes(&old).await;
    issuer.answer(200, set);
    let refused = || running.take(&old) == Err(Refusal::UnknownKey);
    wait_until("its tokens are refused", LIMIT, async || refused()).await;
    // A failure does not bring them back.
    issuer.answer(500, "");
    let asked = issuer.times_asked();
    wait_until("it is asked again", LIMIT, async || {
        running.known.looked_again().await;
        issuer.times_asked() > asked + 1
    })
    .await;
    assert!(refused());
    issuer.publish(&[&new]);
    running.known.looked_again().await;
    running.takes(&new).await;
    assert!(refused());
}

#[tokio::test]
async fn keys_of_an_issuer_that_is_away_for_too_long_are_none_any_more() {
    let good = Signer::es256("good");
    let issuer = testing::Issuer::start(&[&good]).await;
    let stale = Duration::from_millis(400);
    let running = Running::with(&issuer, Duration::from_millis(20), stale, Duration::ZERO);
    running.takes(&good).await;
    let begun = std::time::Instant::now();
    while begun.elapsed() < stale * 2 {
        assert_eq!(running.take(&good), Ok(()), "each answer makes them good for as long again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    issuer.answer(500, "");
    wait_until("they are none any more", LIMIT, async || running.take(&good) == Err(Refusal::NoKeys)).await;
    issuer.publish(&[&good]);
    running.known.looked_again().await;
    running.takes(&good).await;
}

#[tokio::test]
async fn an_issuer_that_comes_late_is_found_without_anybody_asking() {
    let signer = Signer::es256("late");
    let issuer = testing::Issuer::start(&[]).await;
    issuer.answer(503, "");
    let running = Running::start(&issuer, LONG, LONG);
    wait_until("it is asked", LIMIT, async || issuer.times_asked() > 0).await;
    assert_eq!(running.take(&signer), Err(Refusal::NoKeys));
    issuer.publish(&[&signer]);
    running.takes(&signer).await;
}
