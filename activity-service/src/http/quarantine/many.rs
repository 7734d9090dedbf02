//! Many messages of the quarantine in one request. It ends in time for any proxy and says what is left; the caller
//! repeats it with the cursor it was answered.

use std::time::{Duration, Instant};

use actix_web::{
    HttpRequest,
    http::{Method, StatusCode},
    web::{Data, Json, Payload},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{
    contract::text,
    operators::audit::Author,
    web::{
        auth::Caller,
        http::{Operation, read},
        json::{self, Object},
        problem::{Problem, Violation},
        query::Query,
    },
};
use utoipa::ToSchema;

use super::queries::FilterBody;
use crate::{
    http::Api,
    quarantine::{
        Discarded, Discarding, Filter, Pass, Reason, Replay, Replayed,
        replay::{FigureChange, How},
    },
};

/// Proxies wait for 60 s; the last step may take some seconds more.
const ONE_REQUEST: Duration = Duration::from_secs(20);
const MOST: u32 = 100_000;

pub(super) fn operations() -> [Operation; 2] {
    let repeat = "At most `limit` different messages, and for 20 s. `left` says how many are still to be looked at, 10001 \
                  that there are more than 10000: the same request with the answer's `cursor` goes on. After a 503 a \
                  part is done.";
    [
        Operation::new(Method::POST, "/admin/quarantine/replay", "operations", replay)
            .named("replayQuarantine", "Try messages that wait again: all, or those of a filter", repeat)
            .optional_body::<ReplayBody>(json!({ "filter": { "reason": "unknown_type" }, "dryRun": true }))
            .answers::<TriedPage>(
                StatusCode::OK,
                "What became of them, or would.",
                &[],
                json!({ "counted": 0, "duplicates": 0, "stillWaiting": 2, "figures": [], "left": 0 }),
            )
            .problems(&[422]),
        Operation::new(Method::POST, "/admin/quarantine/discard", "operations", discard)
            .named("discardQuarantine", "Discard the messages of a filter", repeat)
            .body::<DiscardBody>(
                json!({ "filter": { "reason": "unknown_type" }, "reason": "a test of the sender", "dryRun": true }),
            )
            .answers::<DiscardedPage>(
                StatusCode::OK,
                "How many different messages were discarded, or would be.",
                &[],
                json!({ "discarded": 2, "left": 0 }),
            )
            .problems(&[422]),
    ]
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ReplayOfMany)]
struct ReplayBody {
    /// Which of those that wait; all where it is missing.
    #[serde(default)]
    #[schema(value_type = Option<FilterBody>)]
    filter: Option<Object<FilterBody>>,
    /// Counts even what may have been counted before, because its key may have been purged.
    #[serde(default)]
    force: bool,
    /// Changes nothing and says what would become of them. Pages of 1,000 do not see each other: what has one
    /// reference in two of them is counted twice.
    #[serde(default)]
    dry_run: bool,
    /// Why; kept with each message that is counted. 1 to 500 visible characters.
    reason: Option<String>,
    #[serde(default = "most")]
    #[schema(minimum = 1, maximum = 100_000)]
    limit: u32,
    /// From the answer to the same request; the filter has to be the same.
    cursor: Option<String>,
}

impl Default for ReplayBody {
    fn default() -> Self {
        Self { filter: None, force: false, dry_run: false, reason: None, limit: MOST, cursor: None }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = DiscardOfMany)]
struct DiscardBody {
    /// Which of those that wait; `{}` are all.
    #[schema(value_type = FilterBody)]
    filter: Object<FilterBody>,
    /// Why; kept with each message. 1 to 500 visible characters.
    reason: String,
    /// Changes nothing and says how many it would be.
    #[serde(default)]
    dry_run: bool,
    #[serde(default = "most")]
    #[schema(minimum = 1, maximum = 100_000)]
    limit: u32,
    /// From the answer to the same request; the filter has to be the same.
    cursor: Option<String>,
}

const fn most() -> u32 {
    MOST
}

/// What a replay of many did, and what is left.
#[derive(Debug, Serialize, ToSchema)]
struct TriedPage {
    #[serde(flatten)]
    tried: Tried,
    #[serde(flatten)]
    rest: Rest,
}

/// What a discard of many did, and what is left.
#[derive(Debug, Serialize, ToSchema)]
struct DiscardedPage {
    #[serde(flatten)]
    done: Discarded,
    #[serde(flatten)]
    rest: Rest,
}

/// What is left of the messages of a filter.
#[derive(Debug, Serialize, ToSchema)]
struct Rest {
    /// How many were not looked at yet; 10001 are more than 10000.
    #[schema(minimum = 0, maximum = 10_001)]
    left: u64,
    /// Where to go on; missing at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// What a replay did.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Tried {
    #[serde(flatten)]
    pub replayed: Replayed,
    /// By how much which figure would change; only where nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figures: Option<Vec<FigureChange>>,
}

/// # Errors
/// 400 and 422 where the body cannot be read; 503.
async fn replay(
    request: HttpRequest,
    body: Payload,
    api: Data<Api>,
    caller: Caller,
) -> Result<Json<TriedPage>, Problem> {
    Query::none(request.query_string())?;
    let body =
        json::optional_body::<Object<ReplayBody>>(&request, body).await?.map_or_else(Default::default, |body| body.0);
    let filter = body.filter.as_ref().map(|filter| &filter.0);
    let pass = pass(filter, body.cursor.as_deref(), body.limit)?;
    let (why, dry_run) = (why_replayed(body.force, body.reason.as_deref())?, body.dry_run);
    let author = Author::of_request(&request, &caller);
    let how = How { time_zone: &api.time_zone, force: body.force, author: &author, why: &why, dry_run };
    let (mut replay, mut replayed) = (Replay::new(&api.pool, pass, how), Replayed::default());
    let (begin, limit) = (Instant::now(), u64::from(body.limit));
    // What was looked for is tried before it stops: the cursor stands behind it.
    while !replay.may_stop(if begin.elapsed() < ONE_REQUEST { limit } else { 0 }) {
        let Some(done) = read(replay.step(at_most(limit, replay.looked_for()))).await? else { break };
        replayed.add(done);
    }
    let figures = dry_run.then(|| replay.figures());
    Ok(Json(TriedPage { tried: Tried { replayed, figures }, rest: rest_of(&api, &replay.pass).await? }))
}

/// # Errors
/// 400 and 422 where the body cannot be read; 503.
async fn discard(
    request: HttpRequest,
    body: Payload,
    api: Data<Api>,
    caller: Caller,
) -> Result<Json<DiscardedPage>, Problem> {
    Query::none(request.query_string())?;
    let Object(body) = json::body::<Object<DiscardBody>>(&request, body).await?;
    let pass = pass(Some(&body.filter.0), body.cursor.as_deref(), body.limit)?;
    let why = &why(&body.reason)?;
    let author = Author::of_request(&request, &caller);
    let mut discarding = Discarding { pool: &api.pool, pass, author: &author, why, dry_run: body.dry_run };
    let (begin, limit, mut sum) = (Instant::now(), u64::from(body.limit), Discarded::default());
    let mut looked_at = 0;
    while looked_at < limit && begin.elapsed() < ONE_REQUEST {
        let Some(step) = read(discarding.step(at_most(limit, looked_at))).await? else { break };
        looked_at += step.looked_at;
        sum.discarded += step.discarded.discarded;
    }
    if !body.dry_run && sum != Discarded::default() {
        tracing::info!(messages = sum.discarded, actor = caller.subject, "messages discarded");
    }
    Ok(Json(DiscardedPage { done: sum, rest: rest_of(&api, &discarding.pass).await? }))
}

/// # Errors
/// 422.
pub(super) fn why(text: &str) -> Result<String, Problem> {
    let rule = "This must be 1 to 500 visible characters.";
    text::reason(text).ok_or_else(|| Problem::unprocessable(vec![Violation::new("/reason", rule)]))
}

/// That it is a replay, and what its caller says.
///
/// # Errors
/// 422.
pub(super) fn why_replayed(force: bool, reason: Option<&str>) -> Result<String, Problem> {
    let name = Reason::of_replay(force);
    reason.map_or_else(|| Ok(name.into()), |reason| why(reason).map(|reason| format!("{name}: {reason}")))
}

fn at_most(limit: u64, looked_at: u64) -> i64 {
    i64::try_from(limit.saturating_sub(looked_at)).unwrap_or(i64::MAX)
}

fn pass(filter: Option<&FilterBody>, cursor: Option<&str>, limit: u32) -> Result<Pass, Problem> {
    let filter = filter.map_or(Ok(Filter::default()), |body| Filter::of_body(body, "/filter"));
    let mut violations = Vec::new();
    if !(1..=MOST).contains(&limit) {
        violations.push(Violation::new("/limit", format!("This must be from 1 to {MOST}.")));
    }
    let pass = match (filter, cursor) {
        (Err(wrong), _) => {
            violations.extend(wrong);
            None
        }
        (Ok(filter), None) => Some(Pass::new(filter)),
        (Ok(filter), Some(cursor)) => {
            let pass = Pass::resumed(filter, cursor);
            if pass.is_none() {
                violations.push(Violation::new("/cursor", "This must be the cursor of an answer for the same filter."));
            }
            pass
        }
    };
    pass.filter(|_| violations.is_empty()).ok_or_else(|| Problem::unprocessable(violations))
}

async fn rest_of(api: &Api, pass: &Pass) -> Result<Rest, Problem> {
    let left = read(pass.left(&api.pool)).await?;
    Ok(Rest { left, cursor: pass.cursor().filter(|_| left > 0) })
}
