//! The quarantine, for operators.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Payload},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use shared::{
    http::{path_parameter, read},
    json::{self, Object},
    paging,
    problem::{Problem, Violation},
    query::Query,
};
use uuid::Uuid;

use super::{ACTOR, Api};
use crate::quarantine::{
    self, Discard, Entry, Page, Reason, Replay, Replayed, Scope, State, listing::parse_why, replay::How,
};

/// A message with its value.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Whole {
    #[serde(flatten)]
    pub entry: Entry,
    /// Null where the message had none.
    pub value_base64: Option<String>,
}

impl Whole {
    #[must_use]
    pub fn new((entry, value): (Entry, Option<Vec<u8>>)) -> Self {
        Self { entry, value_base64: value.map(|value| BASE64_STANDARD.encode(value)) }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayBody {
    #[serde(default)]
    force: bool,
}

/// # Errors
/// 400 and 422 where the query cannot be read; 503.
pub async fn list(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let page = Page::parse(request.query_string())?;
    let (entries, next) = read(quarantine::list(&api.pool, &page)).await?;
    Ok(paging::respond(&request, &entries, next))
}

/// # Errors
/// 404; 503.
pub async fn find(request: HttpRequest, api: Data<Api>) -> Result<Json<Whole>, Problem> {
    Query::parse(request.query_string(), &[])?;
    known(&api, id(&request)?).await.map(|found| Json(Whole::new(found)))
}

/// # Errors
/// 400 and 422 where the body cannot be read; 404; 409 unless it waits; 503.
pub async fn replay(request: HttpRequest, body: Payload, api: Data<Api>) -> Result<Json<Replayed>, Problem> {
    Query::parse(request.query_string(), &[])?;
    let id = id(&request)?;
    let force = force(&request, body).await?;
    let (entry, _) = known(&api, id).await?;
    if entry.state != State::Waiting.as_str() {
        return Err(Problem::conflict("Only a message that waits can be replayed."));
    }
    run(&api, Scope::One(id), force).await
}

/// # Errors
/// 400 and 422 where the body cannot be read; 503.
pub async fn replay_all(request: HttpRequest, body: Payload, api: Data<Api>) -> Result<Json<Replayed>, Problem> {
    Query::parse(request.query_string(), &[])?;
    let force = force(&request, body).await?;
    run(&api, Scope::All, force).await
}

/// # Errors
/// 400 without a reason, 422 where it cannot be kept; 404; 409 unless it waits; 503.
pub async fn discard(request: HttpRequest, api: Data<Api>) -> Result<Json<Entry>, Problem> {
    let mut query = Query::parse(request.query_string(), &["reason"])?;
    let id = id(&request)?;
    let why = query.text("reason").ok_or_else(|| Problem::bad_request("The query parameter reason is required."))?;
    let why = parse_why(&why).ok_or_else(|| {
        Problem::unprocessable(vec![Violation::new("/reason", "This must be 1 to 500 visible characters.")])
    })?;
    match read(quarantine::discard(&api.pool, id, ACTOR, why)).await? {
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

async fn run(api: &Api, scope: Scope, force: bool) -> Result<Json<Replayed>, Problem> {
    let why = Reason::of_replay(force);
    let how = How { time_zone: &api.time_zone, force, actor: ACTOR, why, dry_run: false };
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
