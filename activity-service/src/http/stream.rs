//! Figures as they change, as server-sent events. A stream that is open is current: it ends where the database is out
//! of reach, where the caller's token ends or is taken back, and where this instance stops, and callers open it again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, HeaderMap},
    web::{Bytes, Data},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::stream;
use sha2::{Digest, Sha256};
use shared::{
    runtime::lifecycle::Shutdown,
    web::{
        auth::{Authentication, Caller},
        http::{DATABASE_PATIENCE, Operation, Parameter, schema},
        problem::Problem,
    },
};
use time::{Date, OffsetDateTime};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Api, activities};
use crate::{
    completeness::Completeness,
    live::{Follower, LiveDay, LiveFigures},
};

/// So often something is sent, that proxies and callers can tell a quiet stream from a dead one.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// So often it is looked whether the caller's token is still good: its key may have been taken back.
const CHECKED_EVERY: Duration = Duration::from_secs(15);
/// A stream of a caller without a token lasts so long at most: the connection may be of nobody by then.
const LONGEST: Duration = Duration::from_hours(24);
/// Before a refused caller asks again: there are others who read.
const RETRY_AFTER: Duration = Duration::from_secs(15);

const EXAMPLE: &str = "event: figures\nid: qzLc2Ys0u7k\ndata: [{\"activityDate\":\"2026-11-22\",\
    \"activityTypeCode\":\"ORDER_CREATED\",\"activityTypeName\":\"Order Created\",\"quantity\":1234,\
    \"lastCountedAt\":\"2026-11-22T14:03:07.123456Z\",\"lateQuantity\":0,\"missingQuantity\":0}]\n\n";

pub(super) fn operation() -> Operation {
    let bound = |name, description| Parameter::query(name, description, schema::formatted("date")).required();
    Operation::stream("/activities/stream", "activity:read", follow)
        .named(
            "followFigures",
            "The figures of a range of days as they change",
            "Events: `figures` at once and at each change (at most two a second), an array of figures: at first of all \
             days of the range, then of the days that changed, each whole. `completeness`, as `GET /completeness` has \
             it, at once and every second it moves. A comment every 15 s. The range has at most 400 days. With the \
             `id` of the last `figures` in `Last-Event-ID` they come again only if they have changed since. The stream \
             ends with the token, within 15 s of its key being taken back, where the database is out of reach, and where the instance stops: open it again. \
             503 where the instance has as many streams as `http.max_streams` allows.",
        )
        .parameter(bound("from", "The first day."))
        .parameter(bound("to", "The last day."))
        .answers_events("The events, until one side ends it.", EXAMPLE)
        .problems(&[422])
}

/// # Errors
/// 400 and 422 as for figures of a range; 503 where there are too many streams or the database is out of reach.
async fn follow(
    request: HttpRequest,
    api: Data<Api>,
    shutdown: Data<Shutdown>,
    caller: Caller,
    authentication: Data<Authentication>,
) -> Result<HttpResponse, Problem> {
    let range = activities::range_of(&request, &[], activities::MAX_DAYS)?.0;
    let Some(mut follower) = api.live.join(range) else {
        return Err(Problem::unavailable().retry_after(RETRY_AFTER));
    };
    // Looked at before it is answered: an outage has a status.
    let first = timeout(DATABASE_PATIENCE, follower.look()).await.ok().flatten();
    let found = first.and_then(|look| look.found).ok_or_else(Problem::unavailable)?;
    let known = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let now = Instant::now();
    let credentials = Credentials { headers: request.headers().clone(), authentication, checked: now };
    let (days, end) = (BTreeMap::new(), now + lasts(&caller));
    let told = StreamState { days, completeness: None, id: known, end, at: now, credentials };
    let events = stream::unfold(
        (told, follower, Some(found), shutdown.into_inner()),
        async |(mut told, mut follower, mut found, shutdown)| {
            let event = told.next(&mut follower, found.take(), &shutdown).await?;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(event)), (told, follower, None, shutdown)))
        },
    );
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        // nginx would keep it back until it has a page full.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(events))
}

/// How long the caller may go on reading.
fn lasts(caller: &Caller) -> Duration {
    let left = caller.until.map(|until| until.saturating_sub(OffsetDateTime::now_utc().unix_timestamp()));
    left.map_or(LONGEST, |left| Duration::from_secs(u64::try_from(left).unwrap_or(0)).min(LONGEST))
}

/// What one stream was told.
struct StreamState {
    days: BTreeMap<Date, Arc<LiveDay>>,
    completeness: Option<Arc<Completeness>>,
    /// Of the figures that the caller has.
    id: Option<String>,
    end: Instant,
    /// When something was sent last.
    at: Instant,
    credentials: Credentials,
}

/// What the stream was asked for with.
struct Credentials {
    headers: HeaderMap,
    authentication: Data<Authentication>,
    /// When they were last seen to be good.
    checked: Instant,
}

impl StreamState {
    /// What is sent next; none at the end.
    async fn next(
        &mut self,
        follower: &mut Follower,
        first: Option<Arc<LiveFigures>>,
        shutdown: &Shutdown,
    ) -> Option<String> {
        let mut text = first.map_or_else(|| Some(String::new()), |found| self.take(follower.range, &found))?;
        while text.is_empty() {
            tokio::select! {
                biased;
                () = shutdown.drain_begun() => return None,
                () = sleep_until(self.end) => return None,
                () = sleep_until(self.credentials.checked + CHECKED_EVERY) => {
                    self.credentials.authentication.caller(&self.credentials.headers).await.ok()?;
                    self.credentials.checked = Instant::now();
                }
                look = follower.look() => text = self.take(follower.range, &*look?.found?)?,
                () = sleep_until(self.at + COMMENT_EVERY) => text = ":\n\n".into(),
            }
        }
        self.at = Instant::now();
        Some(text)
    }

    /// The events of what is new in it; none where a day has lost its figures, which no event says.
    fn take(&mut self, (from, to): (Date, Date), found: &LiveFigures) -> Option<String> {
        let now: BTreeMap<_, _> = found.days.range(from..=to).map(|(date, day)| (*date, Arc::clone(day))).collect();
        if self.days.keys().any(|date| !now.contains_key(date)) {
            return None;
        }
        let is_first = self.completeness.is_none();
        let mut text = String::new();
        let changed = now.iter().filter(|(date, day)| self.days.get(date).is_none_or(|told| told.digest != day.digest));
        let changed: Vec<&str> = changed.map(|(_, day)| day.json.as_str()).collect();
        if is_first || !changed.is_empty() {
            let id = id_of(&now);
            if self.id.as_ref() != Some(&id) {
                text = format!("event: figures\nid: {id}\ndata: [{}]\n\n", changed.join(","));
                self.id = Some(id);
            }
        }
        self.days = now;
        if self.completeness.as_ref().is_none_or(|told| told.has_moved(&found.completeness)) {
            let json = serde_json::to_string(&*found.completeness).expect("texts, numbers and times are JSON");
            text.push_str(&format!("event: completeness\ndata: {json}\n\n"));
            self.completeness = Some(Arc::clone(&found.completeness));
        }
        Some(text)
    }
}

/// The same for the same figures, on every instance.
fn id_of(days: &BTreeMap<Date, Arc<LiveDay>>) -> String {
    let all = days.values().fold(Sha256::new(), |all, day| all.chain_update(day.digest));
    BASE64_URL_SAFE_NO_PAD.encode(&all.finalize()[..16])
}
