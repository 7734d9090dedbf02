//! The quarantine, for operators.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode},
    web::{Data, Json, Payload},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::{
    audit::Author,
    auth::Caller,
    http::{Operation, Parameter, path_parameter, read, schema},
    json::{self, Object},
    paging,
    problem::{Problem, Violation},
    query::Query,
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::quarantine::{
    self, Discard, Entry, Page, Reason, Replay, Replayed, Scope, State, listing::parse_why, replay::How,
};

pub(super) fn operations() -> [Operation; 5] {
    let id = || Parameter::path("id", "The message's name in the quarantine.", schema::formatted("uuid"));
    let replayed = || json!({ "counted": 1, "duplicates": 0, "stillWaiting": 0 });
    [
        Operation::new(Method::GET, "/admin/quarantine", "operations", list)
            .named("listQuarantine", "Messages of one state, oldest first", "")
            .parameter(Parameter::query("state", "Only these; `waiting` if absent.", State::schema()))
            .parameter(Parameter::query("reason", "Only those that wait for this reason.", Reason::schema()))
            .answers_page::<Entry>("A page.", json!([entry("waiting")])),
        Operation::new(Method::GET, "/admin/quarantine/{id}", "operations", find)
            .named("findQuarantined", "One message, with its value", "")
            .parameter(id())
            .answers::<Whole>(StatusCode::OK, "The message.", &[], whole())
            .problems(&[404]),
        Operation::new(Method::POST, "/admin/quarantine/{id}/replay", "operations", replay)
            .named("replayQuarantined", "Try one message again", "409 unless it waits.")
            .parameter(id())
            .optional_body::<ReplayBody>(json!({ "force": false }))
            .answers::<Replayed>(StatusCode::OK, "What became of it.", &[], replayed())
            .problems(&[404, 409]),
        Operation::new(Method::POST, "/admin/quarantine/replay", "operations", replay_all)
            .named("replayQuarantine", "Try every message that waits again", "After a 503 a part of them was tried.")
            .optional_body::<ReplayBody>(json!({ "force": false }))
            .answers::<Replayed>(StatusCode::OK, "What became of them.", &[], replayed()),
        Operation::new(Method::DELETE, "/admin/quarantine/{id}", "operations", discard)
            .named("discardQuarantined", "Discard one message", "It is kept, with the reason. 409 unless it waits.")
            .parameter(id())
            .parameter(Parameter::query("reason", "Why.", schema::visible(500, "a test of the sender")).required())
            .answers::<Entry>(StatusCode::OK, "The message as it is kept.", &[], discarded())
            .problems(&[404, 409, 422]),
    ]
}

fn entry(state: &str) -> Value {
    json!({
        "id": "0192f0c4-5d2e-7a10-b3c4-d5e6f7081920",
        "topic": "summarisation.order",
        "partition": 3,
        "offset": 42,
        "reason": "unknown type",
        "detail": "the type is not registered",
        "state": state,
        "messages": 1,
        "receivedAt": "2026-11-22T17:04:05.123456Z",
    })
}

fn whole() -> Value {
    let mut whole = entry("waiting");
    whole["valueBase64"] = json!("eyJtZXNzYWdlUmVmIjoi4oCmIn0=");
    whole
}

fn discarded() -> Value {
    let mut discarded = entry("discarded");
    discarded["resolvedAt"] = json!("2026-11-22T18:00:00.000000Z");
    discarded["resolvedBy"] = json!("anonymous");
    discarded["resolution"] = json!("a test of the sender");
    discarded
}

/// A message with its value.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WholeQuarantinedMessage)]
pub struct Whole {
    #[serde(flatten)]
    pub entry: Entry,
    /// Null where the message had none.
    #[schema(required, content_encoding = "base64")]
    pub value_base64: Option<String>,
}

impl Whole {
    #[must_use]
    pub fn new((entry, value): (Entry, Option<Vec<u8>>)) -> Self {
        Self { entry, value_base64: value.map(|value| BASE64_STANDARD.encode(value)) }
    }
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Replay)]
struct ReplayBody {
    /// Counts even what may have been counted before, because its key may have been purged.
    #[serde(default)]
    force: bool,
}

/// # Errors
/// 400 and 422 where the query cannot be read; 503.
async fn list(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let page = Page::parse(request.query_string())?;
    let (entries, next) = read(quarantine::list(&api.pool, &page)).await?;
    Ok(paging::respond(&request, &entries, next))
}

/// # Errors
/// 404; 503.
async fn find(request: HttpRequest, api: Data<Api>) -> Result<Json<Whole>, Problem> {
    Query::parse(request.query_string(), &[])?;
    known(&api, id(&request)?).await.map(|found| Json(Whole::new(found)))
}

/// # Errors
/// 400 and 422 where the body cannot be read; 404; 409 unless it waits; 503.
async fn replay(
    request: HttpRequest,
    body: Payload,
    api: Data<Api>,
    caller: Caller,
) -> Result<Json<Replayed>, Problem> {
    Query::parse(request.query_string(), &[])?;
    let id = id(&request)?;
    let force = force(&request, body).await?;
    let (entry, _) = known(&api, id).await?;
    if entry.state != State::Waiting.as_str() {
        return Err(Problem::conflict("Only a message that waits can be replayed."));
    }
    run(&api, Scope::One(id), force, &Author::of_request(&request, &caller)).await
}

/// # Errors
/// 400 and 422 where the body cannot be read; 503.
async fn replay_all(
    request: HttpRequest,
    body: Payload,
    api: Data<Api>,
    caller: Caller,
) -> Result<Json<Replayed>, Problem> {
    Query::parse(request.query_string(), &[])?;
    let force = force(&request, body).await?;
    run(&api, Scope::All, force, &Author::of_request(&request, &caller)).await
}

/// # Errors
/// 400 without a reason, 422 where it cannot be kept; 404; 409 unless it waits; 503.
async fn discard(request: HttpRequest, api: Data<Api>, caller: Caller) -> Result<Json<Entry>, Problem> {
    let mut query = Query::parse(request.query_string(), &["reason"])?;
    let id = id(&request)?;
    let why = query.text("reason").ok_or_else(|| Problem::bad_request("The query parameter reason is required."))?;
    let why = parse_why(&why).ok_or_else(|| {
        Problem::unprocessable(vec![Violation::new("/reason", "This must be 1 to 500 visible characters.")])
    })?;
    match read(quarantine::discard(&api.pool, id, &Author::of_request(&request, &caller), why)).await? {
        Discard::Done => known(&api, id).await.map(|(entry, _)| Json(entry)),
        Discard::NotWaiting => Err(Problem::conflict("Only a message that waits can be discarded.")),
        Discard::Unknown => Err(Problem::not_found()),
    }
}

/// The caller waits for as long as the database goes on answering.
pub(super) async fn to_the_end(mut replay: Replay<'_>) -> Result<Replayed, Problem> {
    let mut sum = Replayed::default();
    while let Some(done) = read(replay.step()).await? {
        sum.add(done);
    }
    Ok(sum)
}

async fn run(api: &Api, scope: Scope, force: bool, author: &Author) -> Result<Json<Replayed>, Problem> {
    let why = Reason::of_replay(force);
    let how = How { time_zone: &api.time_zone, force, author, why, dry_run: false };
    to_the_end(Replay::new(&api.pool, scope, how)).await.map(Json)
}

async fn force(request: &HttpRequest, body: Payload) -> Result<bool, Problem> {
    let body = json::optional_body::<Object<ReplayBody>>(request, body).await?;
    Ok(body.is_some_and(|Object(body)| body.force))
}

async fn known(api: &Api, id: Uuid) -> Result<(Entry, Option<Vec<u8>>), Problem> {
    read(quarantine::find(&api.pool, id)).await?.ok_or_else(Problem::not_found)
}

fn id(request: &HttpRequest) -> Result<Uuid, Problem> {
    Uuid::try_parse(&path_parameter(request)?).map_err(|_| Problem::not_found())
}
