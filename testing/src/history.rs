use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

/// What the clients of a test asked for and were told. Every order has a customer of its own, so
/// that an order nobody asked for, or one placed twice, shows.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Book>>);

#[derive(Clone, Debug, Default)]
struct Book {
    asked: BTreeSet<String>,
    acknowledged: BTreeMap<String, String>,
    /// By order, the status that a change was answered with.
    changed: BTreeMap<String, String>,
    /// By key, the first answer to an order placed under it.
    under_keys: BTreeMap<String, Answer>,
    others: BTreeMap<String, u64>,
    slowest: Duration,
}

impl History {
    /// The customers whose order was sent, whatever came of it.
    #[must_use]
    pub fn asked(&self) -> BTreeSet<String> {
        self.book().asked.clone()
    }

    /// Every order answered 201: its reference and its customer.
    #[must_use]
    pub fn acknowledged(&self) -> BTreeMap<String, String> {
        self.book().acknowledged.clone()
    }

    /// Every order whose change was answered 200, and the status it then had.
    #[must_use]
    pub fn changed(&self) -> BTreeMap<String, String> {
        self.book().changed.clone()
    }

    /// How many orders were answered otherwise: by status, or by the kind of the failure.
    #[must_use]
    pub fn others(&self) -> BTreeMap<String, u64> {
        self.book().others.clone()
    }

    /// The longest that an answer took since this was last asked.
    pub fn take_slowest(&self) -> Duration {
        std::mem::take(&mut self.book().slowest)
    }

    /// An order that is there without having been asked for over HTTP.
    pub fn add(&self, order_ref: &str, customer_ref: &str) {
        let mut book = self.book();
        book.asked.insert(customer_ref.to_owned());
        book.acknowledged.insert(order_ref.to_owned(), customer_ref.to_owned());
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer over HTTP.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Null where the body is no JSON.
    pub body: Value,
    pub bytes: Vec<u8>,
    /// The path asked, without its query.
    pub path: String,
}

impl Answer {
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Of a list: the path of the next page.
    #[must_use]
    pub fn next(&self) -> Option<String> {
        let query = self.header("link").strip_prefix("<?")?.strip_suffix(">; rel=\"next\"")?;
        Some(format!("{}?{query}", self.path))
    }
}

/// A caller of order-service; clones share connections and history.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    apis: Arc<Mutex<VecDeque<String>>>,
    history: History,
    token: Option<String>,
}

impl Client {
    #[must_use]
    pub fn new(api: impl Into<String>, history: &History) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        Self { http, apis: Arc::new(Mutex::new([api.into()].into())), history: history.clone(), token: None }
    }

    /// The same caller with a token.
    #[must_use]
    pub fn bearing(self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// From now on asks these instances in turn, as a load balancer does; at least one.
    pub fn route_to(&self, apis: impl IntoIterator<Item = String>) {
        *self.apis.lock().unwrap() = apis.into_iter().collect();
    }

    fn next_api(&self) -> String {
        let mut apis = self.apis.lock().unwrap();
        apis.rotate_left(1);
        apis[0].clone()
    }

    /// Places an order of a new customer and keeps in mind what became of it.
    pub async fn place(&self) -> Result<Answer, reqwest::Error> {
        let customer = format!("C-{}", Uuid::now_v7().simple());
        self.history.book().asked.insert(customer.clone());
        let begun = Instant::now();
        let answer = self.post("/orders", &order_body(&customer)).await;
        let mut book = self.history.book();
        book.slowest = book.slowest.max(begun.elapsed());
        match &answer {
            Ok(answer) if answer.status == 201 => {
                let order_ref = answer.body["orderRef"].as_str().unwrap().to_owned();
                let before = book.acknowledged.insert(order_ref, customer);
                assert_eq!(before, None, "one reference for two orders");
            }
            Ok(answer) => *book.others.entry(answer.status.to_string()).or_default() += 1,
            Err(error) if error.is_timeout() => *book.others.entry("no answer".into()).or_default() += 1,
            Err(error) => *book.others.entry(root_cause(error)).or_default() += 1,
        }
        drop(book);
        answer
    }

    /// Places an order under an `Idempotency-Key` and keeps in mind what became of it.
    ///
    /// # Panics
    /// The key has given another answer before.
    pub async fn place_under(&self, key: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        let customer = body["customerRef"].as_str().unwrap().trim().to_owned();
        self.history.book().asked.insert(customer.clone());
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let answer = self.ask(Method::POST, "/orders", &headers, serde_json::to_vec(body).unwrap()).await?;
        if answer.status == 201 {
            let mut book = self.history.book();
            book.acknowledged.insert(answer.body["orderRef"].as_str().unwrap().to_owned(), customer);
            let first = book.under_keys.entry(key.to_owned()).or_insert_with(|| answer.clone());
            assert_eq!(first.bytes, answer.bytes, "I2: one key, two answers");
            assert_eq!(first.header("location"), answer.header("location"), "I2: one key, two places");
        }
        Ok(answer)
    }

    /// Completes or cancels an order, and keeps in mind what became of it.
    ///
    /// # Panics
    /// It was changed otherwise before.
    pub async fn change(&self, order_ref: &str, change: &str) -> Result<Answer, reqwest::Error> {
        let answer = self.ask(Method::POST, &format!("/orders/{order_ref}/{change}"), &[], Vec::new()).await?;
        if answer.status == 200 {
            let status = answer.body["statusName"].as_str().unwrap().to_owned();
            let before = self.history.book().changed.insert(order_ref.to_owned(), status.clone());
            assert!(before.is_none_or(|before| before == status), "{order_ref} has ended twice");
        }
        Ok(answer)
    }

    /// # Panics
    /// It is not placed.
    pub async fn place_one(&self) -> String {
        let answer = self.place().await.unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["orderRef"].as_str().unwrap().to_owned()
    }

    /// Places `count` orders, `concurrency` at a time.
    pub async fn load(&self, count: u64, concurrency: usize) {
        let left = Arc::new(AtomicU64::new(count));
        let mut callers = JoinSet::new();
        for _ in 0..concurrency {
            let (client, left) = (self.clone(), Arc::clone(&left));
            callers.spawn(async move {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    drop(client.place().await);
                }
            });
        }
        callers.join_all().await;
    }

    /// Places orders, `concurrency` at a time, as long as `work` takes.
    pub async fn load_during<T>(&self, concurrency: usize, work: impl Future<Output = T>) -> T {
        let mut callers = JoinSet::new();
        let go_on = Arc::new(AtomicBool::new(true));
        for _ in 0..concurrency {
            let (client, go_on) = (self.clone(), Arc::clone(&go_on));
            callers.spawn(async move {
                while go_on.load(Ordering::Relaxed) {
                    if client.place().await.map_or(true, |answer| answer.status != 201) {
                        // Nobody asks again at once.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            });
        }
        let done = work.await;
        go_on.store(false, Ordering::Relaxed);
        callers.join_all().await;
        done
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        let body = serde_json::to_vec(body).unwrap();
        self.ask(Method::POST, path, &[("content-type", "application/json")], body).await
    }

    /// # Panics
    /// There is no answer.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], Vec::new()).await.unwrap()
    }

    /// The body of what is not JSON.
    ///
    /// # Panics
    /// There is no answer, or not 200.
    pub async fn text(&self, path: &str) -> String {
        let response = self.http.get(format!("{}{path}", self.next_api())).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.text().await.unwrap()
    }

    /// Any request.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.next_api())).body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await?.to_vec();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default().to_owned();
        Ok(Answer { status, headers, body, bytes, path })
    }

    /// A list from `path` through all its pages.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let mut found = Vec::new();
        let mut next = Some(path.to_owned());
        while let Some(path) = next {
            let page = self.get(&path).await;
            assert_eq!(page.status, 200, "{page:?}");
            found.extend_from_slice(page.body.as_array().unwrap());
            next = page.next();
        }
        found
    }
}

/// The body of an order with two lines.
#[must_use]
pub fn order_body(customer_ref: &str) -> Value {
    json!({"customerRef": customer_ref, "orderItems": [
        {"productId": Uuid::now_v7(), "quantity": 2},
        {"productId": Uuid::now_v7(), "quantity": 1},
    ]})
}

fn root_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), root_cause)
}
