//! Judges from outside, by SQL, a dump of the topic and the clients' own history, whether what the
//! system promises holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::PgPool;
use uuid::Uuid;

use crate::{History, Received, Topic};

/// A row of the outbox.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct OutboxRow {
    pub message_ref: Uuid,
    pub order_id: i64,
    pub state: String,
    pub failures: i32,
    pub last_error: Option<String>,
    pub key: String,
    pub value: String,
    pub headers: Vec<String>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
}

/// What a test has to find at its end, when everything is at rest. By default that is: nothing
/// unpublished, nothing failed, no failure counted, nothing twice.
#[derive(Debug)]
pub struct Checker {
    pool: PgPool,
    topic: Topic,
    history: History,
    /// None: whatever is on the topic is of this database.
    source: Option<String>,
    duplicates: bool,
    in_flight: BTreeSet<Uuid>,
    purged: bool,
    unpublished: bool,
    failures: bool,
    failed: BTreeSet<Uuid>,
    erased: BTreeSet<String>,
}

impl Checker {
    #[must_use]
    pub fn new(pool: &PgPool, topic: &Topic, history: &History) -> Self {
        let (pool, topic, history) = (pool.clone(), topic.clone(), history.clone());
        Self {
            pool,
            topic,
            history,
            source: None,
            duplicates: false,
            in_flight: BTreeSet::new(),
            purged: false,
            unpublished: false,
            failures: false,
            failed: BTreeSet::new(),
            erased: BTreeSet::new(),
        }
    }

    /// Others announce on the topic as well.
    #[must_use]
    pub fn of_source(self, source: &str) -> Self {
        Self { source: Some(source.to_owned()), ..self }
    }

    /// Messages may be on the topic more than once, byte-identical.
    #[must_use]
    pub fn duplicates_allowed(self) -> Self {
        Self { duplicates: true, ..self }
    }

    /// These may be on the topic more than once, byte-identical, and no others.
    #[must_use]
    pub fn in_flight(mut self, refs: impl IntoIterator<Item = Uuid>) -> Self {
        self.in_flight.extend(refs);
        self
    }

    /// Published messages may have been removed from the outbox.
    #[must_use]
    pub fn purge_allowed(self) -> Self {
        Self { purged: true, ..self }
    }

    /// Messages may be left unpublished.
    #[must_use]
    pub fn unpublished_allowed(self) -> Self {
        Self { unpublished: true, ..self }
    }

    /// Messages may have been refused before they were published.
    #[must_use]
    pub fn failures_allowed(self) -> Self {
        Self { failures: true, ..self }
    }

    /// Exactly these were made to fail.
    #[must_use]
    pub fn failed(self, failed: impl IntoIterator<Item = Uuid>) -> Self {
        Self { failed: failed.into_iter().collect(), ..self }
    }

    /// These customers have a pseudonym in all of their orders.
    #[must_use]
    pub fn erased<'a>(mut self, customers: impl IntoIterator<Item = &'a str>) -> Self {
        self.erased.extend(customers.into_iter().map(str::to_owned));
        self
    }

    /// # Panics
    /// Something that is promised does not hold. Tells everything that does not.
    pub async fn judge(self) {
        let mut wrong = self.broken().await;
        let count = wrong.len();
        wrong.truncate(20);
        assert!(wrong.is_empty(), "{count} promises broken:\n{}", wrong.join("\n"));
    }

    /// Everything that is promised and does not hold; each begins with the invariant's name, or is a
    /// word on what came twice or was given a failure.
    pub async fn broken(&self) -> Vec<String> {
        let rows = outbox(&self.pool).await;
        let mut on_topic = self.topic.dump().await;
        on_topic.retain(|message| self.source.as_ref().is_none_or(|source| message.header("ce_source") == *source));
        let mut wrong = Vec::new();
        self.judge_orders(&mut wrong).await;
        self.judge_changes(&mut wrong).await;
        self.judge_outbox(&rows, &mut wrong);
        self.judge_topic(&rows, &on_topic, &self.order_refs().await, &mut wrong);
        wrong
    }

    /// I1, I2, I3.
    async fn judge_orders(&self, wrong: &mut Vec<String>) {
        let orders: Vec<(String, String)> =
            sqlx::query_as("SELECT order_ref(order_id), customer_ref FROM orders").fetch_all(&self.pool).await.unwrap();
        let placed: BTreeMap<_, _> = orders.iter().map(|(order, customer)| (order, customer)).collect();
        for (order, customer) in &self.history.acknowledged() {
            let is_erased = self.erased.contains(customer);
            let fits = |found: &str| if is_erased { found.starts_with("erased-") } else { found == customer };
            if !placed.get(order).is_some_and(|found| fits(found)) {
                wrong.push(format!("I1: {order} of {customer} was answered 201 and is {:?}", placed.get(order)));
            }
        }
        let asked = self.history.asked();
        let mut customers = BTreeSet::new();
        for (order, customer) in &orders {
            if !self.erased.is_empty() && customer.starts_with("erased-") {
                continue;
            }
            if !asked.contains(customer) {
                wrong.push(format!("I2: nobody asked for {order} of {customer}"));
            }
            if !customers.insert(customer) {
                wrong.push(format!("I2: {order} of {customer} was placed twice"));
            }
        }
        let torn: Vec<(Option<i64>, Option<i64>)> = sqlx::query_as(
            r"
            SELECT o.order_id, m.order_id
            FROM (SELECT order_id, number_of_items, cardinality(product_ids) AS lines FROM orders) o
            FULL JOIN outbox m USING (order_id)
            WHERE o.order_id IS NULL OR (m.order_id IS NULL AND NOT $1) OR o.lines <> o.number_of_items
            ",
        )
        .bind(self.purged)
        .fetch_all(&self.pool)
        .await
        .unwrap();
        wrong.extend(torn.iter().map(|(order, message)| format!("I3: order {order:?}, message of {message:?}")));
    }

    /// I1 and I3 of what became of orders: each change that was answered is there, and an order has
    /// one message for each of its versions.
    async fn judge_changes(&self, wrong: &mut Vec<String>) {
        let orders: Vec<(String, String, i32, Option<Vec<String>>)> = sqlx::query_as(
            r#"
            SELECT order_ref(o.order_id), o.status, o.version,
                array_agg(m.activity_type_code || ' ' || m.order_version ORDER BY m.activity_type_code DESC)
                    FILTER (WHERE m.order_id IS NOT NULL)
            FROM orders o LEFT JOIN outbox m USING (order_id)
            GROUP BY o.order_id
            "#,
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let changed = self.history.changed();
        for (order, status, version, messages) in &orders {
            if changed.get(order).is_some_and(|answered| answered != status) {
                wrong.push(format!("I1: {order} was answered to be {:?} and is {status}", changed.get(order)));
            }
            let expected = match status.as_str() {
                "Fulfilled" => &["ORDER_CREATED 1", "ORDER_COMPLETED 2"][..],
                "Cancelled" => &["ORDER_CREATED 1", "ORDER_CANCELLED 2"],
                _ => &["ORDER_CREATED 1"],
            };
            let messages = messages.as_deref().unwrap_or_default();
            let are_complete = messages.len() == expected.len() || (self.purged && messages.len() < expected.len());
            let mut unmet = expected.iter();
            let are_its_own = messages.iter().all(|message| unmet.any(|expected| expected.starts_with(message)));
            if usize::try_from(*version).unwrap() != expected.len() || !are_complete || !are_its_own {
                wrong.push(format!("I3: {order} is {status} in version {version} and has {messages:?}"));
            }
        }
    }

    /// As keys of messages; what is purged has no other trace in the database.
    async fn order_refs(&self) -> BTreeSet<Option<Vec<u8>>> {
        let orders: Vec<String> =
            sqlx::query_scalar("SELECT order_ref(order_id) FROM orders").fetch_all(&self.pool).await.unwrap();
        orders.into_iter().map(|order| Some(order.into_bytes())).collect()
    }

    /// I5.
    fn judge_outbox(&self, rows: &[OutboxRow], wrong: &mut Vec<String>) {
        for row in rows {
            let expected = match row.state.as_str() {
                "unpublished" => self.unpublished,
                "failed" | "discarded" => self.failed.contains(&row.message_ref),
                _ => !self.failed.contains(&row.message_ref),
            };
            if !expected {
                wrong.push(format!("I5: {} of order {} is {}", row.message_ref, row.order_id, row.state));
            }
            if row.failures != 0 && !self.failures && !self.failed.contains(&row.message_ref) {
                wrong.push(format!("{} was given {} failures: {:?}", row.message_ref, row.failures, row.last_error));
            }
        }
    }

    /// I4, and nothing twice.
    fn judge_topic(
        &self,
        rows: &[OutboxRow],
        on_topic: &[Received],
        orders: &BTreeSet<Option<Vec<u8>>>,
        wrong: &mut Vec<String>,
    ) {
        let by_ref: HashMap<_, _> = rows.iter().map(|row| (row.message_ref.to_string(), row)).collect();
        let mut places: HashMap<String, Vec<(i32, i64)>> = HashMap::new();
        for message in on_topic {
            let id = message.header("ce_id");
            match by_ref.get(&id) {
                None if self.purged && orders.contains(&message.key) => {}
                Some(row) if !is_of(message, row) => {
                    wrong.push(format!("I4: other bytes than its row has: {message:?}, {row:?}"))
                }
                Some(_) => places.entry(id).or_default().push((message.partition, message.offset)),
                None => wrong.push(format!("I4: without a row: {message:?}")),
            }
        }
        for (id, row) in &by_ref {
            let places = places.remove(id).unwrap_or_default();
            let marked = row.partition.zip(row.offset);
            if row.state == "published" && !marked.is_some_and(|place| places.contains(&place)) {
                wrong.push(format!("I4: {id} is marked as published at {marked:?} and is at {places:?}"));
            }
            if places.len() > 1 && !self.duplicates && !self.in_flight.contains(&row.message_ref) {
                wrong.push(format!("twice: {id} is at {places:?}"));
            }
        }
    }
}

/// Every row, in the order of their references.
pub(crate) async fn outbox(pool: &PgPool) -> Vec<OutboxRow> {
    sqlx::query_as(
        r#"SELECT message_ref, order_id, state, failures, last_error, key, value, headers, partition, "offset"
            FROM outbox_messages ORDER BY 1"#,
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

fn is_of(message: &Received, row: &OutboxRow) -> bool {
    let headers = row.headers.chunks_exact(2).map(|pair| (pair[0].as_str(), Some(pair[1].as_bytes())));
    message.key.as_deref() == Some(row.key.as_bytes())
        && message.value.as_deref() == Some(row.value.as_bytes())
        && message.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).eq(headers)
}
