//! What an operator asks of the API.

use serde_json::{Value, json};
use testing::{Answer, Client, Received, Service};

use crate::world::{World, client, created};

pub const EATEN: &str = "ORDER_EATEN";

/// A message of a type that nobody knows yet.
pub fn eaten() -> Received {
    created().with_field("activityTypeCode", EATEN).with_header("ce_type", "summarisation.ORDER_EATEN.v1")
}

#[derive(Debug)]
pub struct Operator(pub Client);

impl Operator {
    pub fn of(service: &Service) -> Self {
        Self(client(service))
    }

    /// What is in quarantine, by a query like `state=discarded`.
    pub async fn quarantine(&self, query: &str) -> Vec<Value> {
        self.0.list(&format!("/admin/quarantine?{query}")).await
    }

    /// The id of the message at this offset of partition 0.
    pub async fn id_at(&self, offset: i64, state: &str) -> String {
        let all = self.quarantine(&format!("state={state}")).await;
        let found = all.iter().find(|one| one["partition"] == 0 && one["offset"] == offset);
        found.unwrap_or_else(|| panic!("{offset} is not {state}: {all:?}"))["id"].as_str().unwrap().to_owned()
    }

    pub async fn register(&self, code: &str, name: &str) -> Answer {
        let body = json!({ "activityTypeName": name }).to_string().into_bytes();
        let json = [("content-type", "application/json")];
        self.0.ask(reqwest::Method::PUT, &format!("/activity-types/{code}"), &json, body).await.unwrap()
    }

    pub async fn discard(&self, id: &str, query: &str) -> Answer {
        let path = format!("/admin/quarantine/{id}{query}");
        self.0.ask(reqwest::Method::DELETE, &path, &[], Vec::new()).await.unwrap()
    }

    /// Discards what a body says; answers with the body of a 200.
    pub async fn discard_many(&self, body: &Value) -> Value {
        let answer = self.0.post("/admin/quarantine/discard", body).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// Gives the message other bytes.
    pub async fn correct(&self, id: &str, value: &[u8], reason: &str) -> Answer {
        self.put_value(id, value, &json!({ "reason": reason })).await
    }

    /// Asks what they would do.
    pub async fn try_correction(&self, id: &str, value: &[u8]) -> Answer {
        self.put_value(id, value, &json!({ "reason": "a look", "dryRun": true })).await
    }

    async fn put_value(&self, id: &str, value: &[u8], more: &Value) -> Answer {
        let mut body = more.clone();
        body["valueBase64"] = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, value).into();
        let body = body.to_string().into_bytes();
        let json = [("content-type", "application/json")];
        self.0.ask(reqwest::Method::PUT, &format!("/admin/quarantine/{id}/value"), &json, body).await.unwrap()
    }

    /// One, or all that wait.
    pub async fn replay(&self, id: Option<&str>, body: &Value) -> Answer {
        let one = id.map(|id| format!("/{id}")).unwrap_or_default();
        self.0.post(&format!("/admin/quarantine{one}/replay"), body).await.unwrap()
    }
}

/// What the replay of all answers.
pub fn replayed_all(counted: u64, duplicates: u64, still_waiting: u64) -> Value {
    let mut all = replayed(counted, duplicates, still_waiting);
    all["left"] = json!(0);
    all
}

/// What the replay of one answers.
pub fn replayed(counted: u64, duplicates: u64, still_waiting: u64) -> Value {
    json!({"counted": counted, "duplicates": duplicates, "stillWaiting": still_waiting})
}

impl World {
    /// How many messages in quarantine have this state.
    pub async fn kept(&self, state: &str) -> i64 {
        self.database.number(&format!("SELECT count(*) FROM quarantine WHERE state = '{state}'")).await
    }

    /// A sum over all rows that messages have left.
    pub async fn content(&self) -> String {
        let rows = "SELECT md5(string_agg(all_rows, '' ORDER BY all_rows)) FROM (
            SELECT processed_messages::text AS all_rows FROM processed_messages UNION ALL
            SELECT daily_activities::text FROM daily_activities UNION ALL
            SELECT quarantine::text FROM quarantine) AS everything";
        sqlx::query_scalar(rows).fetch_one(&self.database.pool).await.unwrap()
    }

    /// Reads the whole topic again; the service must not run.
    pub async fn read_again(&self) {
        self.topic().forget(&self.group).await;
        self.run_to_rest().await;
    }
}
