//! The quarantine, for operators.

mod many;
mod queries;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode},
    web::{Data, Json, Payload},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::{
    contract::message::ActivityTypeCode,
    operators::audit::Author,
    web::{
        auth::Caller,
        http::{Operation, Parameter, path_parameter, read, schema},
        json::{self, Object},
        paging,
        problem::{Problem, Violation},
        query::Query,
    },
};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use many::{Tried, why, why_replayed};

use super::Api;
use crate::{
    headers::{self, Header},
    quarantine::{
        self, Discard, Entry, Filter, Page, Pass, QuarantineState, Reason, Rejected, Replay, Replayed,
        correction::{Corrected, Correction},
        listing::Values,
        replay::{FigureChange, How},
    },
};

pub(super) fn operations() -> Vec<Operation> {
    let mut all = Vec::from(of_one());
    all.extend(many::operations());
    all
}

/// The parameters of a filter.
pub(super) fn filter() -> [Parameter; 5] {
    let time = || schema::formatted("date-time");
    [
        Parameter::query("reason", "Only those with this reason.", schema::named::<Reason>()),
        Parameter::query("activityTypeCode", "Only those of this type.", ActivityTypeCode::schema()),
        Parameter::query("topic", "Only those of this topic.", schema::text()),
        Parameter::query("from", "Only those received at this time or later.", time()),
        Parameter::query("to", "Only those received before this time.", time()),
    ]
}

fn of_one() -> [Operation; 5] {
    let id = || Parameter::path("id", "The message's name in the quarantine.", schema::formatted("uuid"));
    let replayed = || json!({ "counted": 1, "duplicates": 0, "stillWaiting": 0 });
    [
        Operation::new(Method::GET, "/admin/quarantine", "operations", list)
            .named("listQuarantine", "Messages of one state, oldest first", "")
            .parameter(Parameter::query(
                "state",
                "Only these; `waiting` if absent.",
                schema::named::<QuarantineState>(),
            ))
            .parameters(filter())
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
            .answers::<Tried>(StatusCode::OK, "What became of it, or would.", &[], replayed())
            .problems(&[404, 409]),
        Operation::new(Method::PUT, "/admin/quarantine/{id}/value", "operations", correct)
            .named(
                "correctQuarantined",
                "Count other bytes in place of a message's own",
                "They are checked like any message and kept beside those that came. 422 if they cannot be counted, and \
                 then nothing has changed; 409 unless the message waits. With `dryRun` nothing is changed, and the answer \
                 has the figures that would be.",
            )
            .parameter(id())
            .body::<CorrectionBody>(correction())
            .answers::<Whole>(StatusCode::OK, "The message as it is kept.", &[], corrected())
            .problems(&[404, 409]),
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
        "key": "OS000042-ORD",
        "activityTypeCode": "ORDER_EATEN",
        "messageRef": "0192f0c2-0000-7000-8000-000000000001",
        "reason": "unknown_type",
        "detail": "the type is not registered",
        "state": state,
        "messages": 1,
        "receivedAt": "2026-11-22T17:04:05.123456Z",
    })
}

fn whole() -> Value {
    let mut whole = entry("waiting");
    whole["valueBase64"] = json!("eyJtZXNzYWdlUmVmIjoi4oCmIn0=");
    whole["headers"] = json!([{ "name": "ce_source", "valueBase64": BASE64_STANDARD.encode("/kitchen") }]);
    whole
}

fn discarded() -> Value {
    let mut discarded = entry("discarded");
    discarded["resolvedAt"] = json!("2026-11-22T18:00:00.000000Z");
    discarded["resolvedBy"] = json!("anonymous");
    discarded["resolution"] = json!("a test of the sender");
    discarded
}

const CORRECTED: &str = r#"{"messageRef":"0192f0c2-0000-7000-8000-000000000001","activityTypeCode":"ORDER_CREATED","activityAt":"2026-11-20T12:00:00Z"}"#;

fn correction() -> Value {
    json!({ "valueBase64": BASE64_STANDARD.encode(CORRECTED), "reason": "the sender meant ORDER_CREATED" })
}

fn corrected() -> Value {
    let mut corrected = whole();
    corrected["state"] = json!("counted");
    corrected["correctedValueBase64"] = json!(BASE64_STANDARD.encode(CORRECTED));
    corrected["resolvedAt"] = json!("2026-11-22T18:00:00.000000Z");
    corrected["resolvedBy"] = json!("anonymous");
    corrected["resolution"] = json!("the sender meant ORDER_CREATED");
    corrected
}

/// A message with its value.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WholeQuarantinedMessage)]
pub struct Whole {
    #[serde(flatten)]
    pub entry: Entry,
    /// The bytes of the message; null where it had none, or they were not kept.
    #[schema(required, content_encoding = "base64")]
    pub value_base64: Option<String>,
    /// Its headers, in their order; of those with more than 16 kB the first ones. None where they were not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<Header>>,
    /// What was counted in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(content_encoding = "base64")]
    pub corrected_value_base64: Option<String>,
    /// By how much which figure would change; only where a correction was tried and nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figures: Option<Vec<FigureChange>>,
}

impl Whole {
    #[must_use]
    pub fn new((entry, values): (Entry, Values)) -> Self {
        let headers = values.headers.as_deref().and_then(|kept| headers::of_json(kept).ok());
        let [value_base64, corrected_value_base64] =
            [values.came, values.corrected].map(|value| value.map(|value| BASE64_STANDARD.encode(value)));
        Self { entry, value_base64, headers, corrected_value_base64, figures: None }
    }
}

/// How to try again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Replay)]
struct ReplayBody {
    /// Counts even what may have been counted before, because its key may have been purged.
    #[serde(default)]
    force: bool,
    /// Changes nothing and says what would become of it.
    #[serde(default)]
    dry_run: bool,
    /// Why; kept with the message once it is counted. 1 to 500 visible characters.
    reason: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Correction)]
struct CorrectionBody {
    #[schema(content_encoding = "base64")]
    value_base64: String,
    /// Why; kept with the message. 1 to 500 visible characters.
    reason: String,
    /// Changes nothing and says what would be counted.
    #[serde(default)]
    dry_run: bool,
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
    Query::none(request.query_string())?;
    known(&api, id(&request)?).await.map(|found| Json(Whole::new(found)))
}

/// # Errors
/// 400 and 422 where the body cannot be read; 404; 409 unless it waits; 503.
async fn replay(request: HttpRequest, body: Payload, api: Data<Api>, caller: Caller) -> Result<Json<Tried>, Problem> {
    Query::none(request.query_string())?;
    let id = id(&request)?;
    let body = json::optional_body::<Object<ReplayBody>>(&request, body).await?;
    let ReplayBody { force, dry_run, reason } = body.map_or_else(Default::default, |body| body.0);
    let (entry, _) = known(&api, id).await?;
    if entry.state != QuarantineState::Waiting.as_str() {
        return Err(Problem::conflict("Only a message that waits can be replayed."));
    }
    let (author, why) = (Author::of_request(&request, &caller), why_replayed(force, reason.as_deref())?);
    let how = How { time_zone: &api.time_zone, force, author: &author, why: &why, dry_run };
    let mut replay = Replay::new(&api.pool, Pass::new(Filter::one(id)), how);
    let replayed = to_the_end(&mut replay).await?;
    Ok(Json(Tried { replayed, figures: dry_run.then(|| replay.figures()) }))
}

/// # Errors
/// 400 and 422 where the body cannot be read, 422 where what it has cannot be counted; 404; 409 unless it waits; 503.
async fn correct(request: HttpRequest, body: Payload, api: Data<Api>, caller: Caller) -> Result<Json<Whole>, Problem> {
    Query::none(request.query_string())?;
    let id = id(&request)?;
    let Object(body) = json::body::<Object<CorrectionBody>>(&request, body).await?;
    let dry_run = body.dry_run;
    let wrong = |rule: String| Problem::unprocessable(vec![Violation::new("/valueBase64", rule)]);
    let value = BASE64_STANDARD.decode(&body.value_base64).map_err(|_| wrong("This must be Base64.".into()))?;
    let (why, author) = (why(&body.reason)?, Author::of_request(&request, &caller));
    let correction = Correction {
        pool: &api.pool,
        time_zone: &api.time_zone,
        id,
        value: &value,
        author: &author,
        why: &why,
        dry_run,
    };
    let whole = async || known(&api, id).await.map(Whole::new);
    match read(correction.apply()).await? {
        Corrected::Done => whole().await.map(Json),
        Corrected::Possible(figures) => whole().await.map(|whole| Json(Whole { figures: Some(figures), ..whole })),
        Corrected::NotWaiting => Err(Problem::conflict("Only a message that waits can be corrected.")),
        Corrected::Unknown => Err(Problem::not_found()),
        Corrected::Refused(Rejected { reason, detail, .. }) => {
            Err(wrong(format!("These bytes cannot be counted ({}): {detail}.", reason.as_str())))
        }
    }
}

/// # Errors
/// 400 without a reason, 422 where it cannot be kept; 404; 409 unless it waits; 503.
async fn discard(request: HttpRequest, api: Data<Api>, caller: Caller) -> Result<Json<Entry>, Problem> {
    let mut query = Query::parse(request.query_string(), &["reason"])?;
    let id = id(&request)?;
    let text = query.text("reason").ok_or_else(|| Problem::bad_request("The query parameter reason is required."))?;
    let why = &why(&text)?;
    match read(quarantine::discard(&api.pool, id, &Author::of_request(&request, &caller), why)).await? {
        Discard::Done => known(&api, id).await.map(|(entry, _)| Json(entry)),
        Discard::NotWaiting => Err(Problem::conflict("Only a message that waits can be discarded.")),
        Discard::Unknown => Err(Problem::not_found()),
    }
}

/// The caller waits for as long as the database goes on answering.
pub(super) async fn to_the_end(replay: &mut Replay<'_>) -> Result<Replayed, Problem> {
    let mut sum = Replayed::default();
    while let Some(done) = read(replay.step(i64::MAX)).await? {
        sum.add(done);
    }
    Ok(sum)
}

async fn known(api: &Api, id: Uuid) -> Result<(Entry, Values), Problem> {
    read(quarantine::find(&api.pool, id)).await?.ok_or_else(Problem::not_found)
}

fn id(request: &HttpRequest) -> Result<Uuid, Problem> {
    Uuid::try_parse(&path_parameter(request)?).map_err(|_| Problem::not_found())
}
