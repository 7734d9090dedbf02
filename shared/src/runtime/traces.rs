//! Traces: an order's request, its placement, its message's sending and counting share one trace,
//! whose W3C context travels with the request, in the outbox's row and in the message's headers.
//!
//! Four spans, made where their begin and end are known, and nothing where no collector is configured.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use actix_web::{
    HttpMessage, HttpRequest,
    dev::ServiceRequest,
    http::header::{HeaderMap, HeaderValue},
};
use anyhow::Context as _;
use opentelemetry::{
    Context, KeyValue, global,
    trace::{Span, SpanContext, SpanKind, Status, TraceContextExt, TraceState, Tracer},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};

use crate::runtime::config::{Reader, Setting, WebUrl, is_this_machine};

/// How long the last spans may take to leave.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
/// How long the collector may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Longer lists of vendors are dropped, as the specification allows, not cut.
const TRACESTATE_LIMIT: usize = 512;

/// Set together with the library's own global provider, which cannot be asked whether it is one.
static EXPORTED: OnceLock<()> = OnceLock::new();

/// The standard variables that say where the collector is, where the setting does not.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

#[derive(Clone, Debug)]
pub struct Settings {
    endpoint: Option<WebUrl>,
    /// Whether the collector is on this machine.
    is_here: bool,
    sampling: f64,
}

impl Settings {
    pub fn read(settings: &mut Reader) -> Self {
        let (endpoint, is_here) = endpoint(settings);
        Self { endpoint, is_here, sampling: settings.within("traces.sampling", 0.0..=1.0, "from 0 to 1") }
    }

    pub(crate) fn start(&self, service: &'static str) -> anyhow::Result<Option<Export>> {
        if self.endpoint.is_none() && !ENDPOINTS.iter().any(|name| is_set(name)) {
            return Ok(None);
        }
        let mut exporter = SpanExporter::builder().with_http().with_timeout(ANSWER_WITHIN);
        if let Some(endpoint) = &self.endpoint {
            exporter = exporter.with_endpoint(endpoint.url().as_str());
        }
        if self.is_here {
            exporter = exporter.with_http_client(client_without_proxy()?);
        }
        let mut provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter.build().context("traces.otlp_endpoint")?)
            .with_resource(resource(service));
        if !is_set("OTEL_TRACES_SAMPLER") {
            // The caller decides for a trace that it has begun.
            provider = provider.with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(self.sampling))));
        }
        let provider = provider.build();
        global::set_tracer_provider(provider.clone());
        EXPORTED.get_or_init(|| ());
        Ok(Some(Export(provider)))
    }
}

/// Where traces go to: by the setting, or by a variable, to which the same rule applies. They name customers' orders.
fn endpoint(settings: &mut Reader) -> (Option<WebUrl>, bool) {
    const ALLOWED_BY: &str = "traces.allow_plaintext";
    let rule = |endpoint: &WebUrl| {
        // The exporter writes it into its lines.
        let rule = "must be a URL like https://collector:4318/v1/traces, without a query";
        if endpoint.url().query().is_none() { Ok(()) } else { Err(rule.to_owned()) }
    };
    // It is a setting whatever the others are.
    settings.get::<bool>(ALLOWED_BY);
    let endpoint = settings.optional("traces.otlp_endpoint", rule);
    let variable = ENDPOINTS.iter().find(|name| is_set(name));
    let is_here = |endpoint: &WebUrl| endpoint.url().host_str().is_some_and(is_this_machine);
    let mut stays_here = endpoint.as_ref().is_some_and(is_here);
    match (&endpoint, variable) {
        (Some(endpoint), _) => settings.check_way_to("traces.otlp_endpoint", endpoint, ALLOWED_BY),
        (None, Some(variable)) => {
            let given = WebUrl::parse(&std::env::var(variable).unwrap_or_default());
            match given.and_then(|endpoint| rule(&endpoint).map(|()| endpoint)) {
                Ok(endpoint) => {
                    stays_here = is_here(&endpoint);
                    settings.check_way_to(variable, &endpoint, ALLOWED_BY);
                }
                Err(mistake) => settings.mistake(variable, mistake),
            }
        }
        (None, None) => {}
    }
    (endpoint, stays_here)
}

/// `HTTP_PROXY` knows no exception for this machine, and the proxy is another one.
fn client_without_proxy() -> anyhow::Result<reqwest::blocking::Client> {
    let make = || reqwest::blocking::Client::builder().timeout(ANSWER_WITHIN).no_proxy().build();
    // One that blocks is not made where others are waited for.
    let made = std::thread::spawn(make).join().map_err(|_| anyhow::anyhow!("its making broke off"));
    made.and_then(|made| Ok(made?)).context("cannot make the client that sends traces")
}

/// Who sends: what the standard variables say of it, and what they do not say.
fn resource(service: &'static str) -> Resource {
    // As the specification has it: a name of one's own, so that two processes of one host differ.
    let own = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string()),
    ];
    let told = Resource::builder().build();
    let missing = own.into_iter().filter(|own| told.get(&own.key).is_none());
    let resource = Resource::builder().with_attributes(missing);
    // Without a name the library makes one up.
    let is_named = told.get(&"service.name".into()).is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    if is_named { resource } else { resource.with_service_name(service) }.build()
}

/// Empty counts as unset.
fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// Sends spans; what is left when it is dropped.
#[derive(Debug)]
pub struct Export(SdkTracerProvider);

impl Drop for Export {
    fn drop(&mut self) {
        // A collector that is away has been complained about by the exporter.
        drop(self.0.shutdown_with_timeout(FLUSH_WITHIN));
    }
}

/// The W3C trace context of a request or message, as it is written in headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    pub parent: Option<String>,
    pub state: Option<String>,
}

impl TraceContext {
    /// What does not parse is left out: the trace ends here, the order does not.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        Self::new(only(headers, "traceparent"), combined(headers, "tracestate"))
    }

    /// As [`TraceContext::of`], of any two texts.
    #[must_use]
    pub fn new(parent: Option<String>, state: Option<String>) -> Self {
        let parent = parent.as_deref().and_then(traceparent);
        let state = state.filter(|text| parent.is_some() && (1..=TRACESTATE_LIMIT).contains(&text.len()));
        Self { parent, state }
    }

    /// What a message takes along that is announced because of `request`: the caller's context as it
    /// came, or that of the request's own span.
    #[must_use]
    pub fn of_request(request: &HttpRequest) -> Self {
        let came = Self::of(request.headers());
        if came.parent.is_some() {
            return came;
        }
        request.extensions().get::<Trace>().map(Trace::written).unwrap_or_default()
    }

    fn remote(&self) -> Option<SpanContext> {
        let parts: Vec<_> = self.parent.as_deref()?.split('-').collect();
        let [_, trace, span, flags] = parts.as_slice() else { return None };
        let flags = u8::from_str_radix(flags, 16).ok()?;
        let state: TraceState = self.state.as_deref().and_then(|state| state.parse().ok()).unwrap_or_default();
        Some(SpanContext::new(
            opentelemetry::TraceId::from_hex(trace).ok()?,
            opentelemetry::SpanId::from_hex(span).ok()?,
            opentelemetry::TraceFlags::new(flags),
            true,
            state,
        ))
    }
}

/// A span under way that others may be children of. Without a collector it is only the caller's.
#[derive(Clone, Debug)]
pub struct Trace(Context);

impl Trace {
    /// Begins the span of a request.
    pub(crate) fn begin(request: &ServiceRequest) -> Self {
        let parent = parent(&TraceContext::of(request.headers()));
        if !are_exported() {
            return Self(parent);
        }
        let name = format!("{} {}", request.method(), request.match_pattern().unwrap_or_default());
        let tracer = global::tracer("http");
        let span = tracer.span_builder(name).with_kind(SpanKind::Server).start_with_context(&tracer, &parent);
        Self(parent.with_span(span))
    }

    /// The trace's id, if there is a trace.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        let context = self.context();
        context.is_valid().then(|| context.trace_id().to_string())
    }

    /// Ends the span of a request that was answered with `status`.
    pub(crate) fn end(&self, status: u16) {
        let span = self.0.span();
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        span.end();
    }

    fn context(&self) -> SpanContext {
        self.0.span().span_context().clone()
    }

    fn written(&self) -> TraceContext {
        let context = self.context();
        if !context.is_valid() {
            return TraceContext::default();
        }
        let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags().to_u8());
        let state = Some(context.trace_state().header()).filter(|state| !state.is_empty());
        TraceContext { parent: Some(format!("00-{trace}-{span}-{flags:02x}")), state }
    }
}

/// Awaits a step of what `request` asks for.
pub async fn step<T>(request: &HttpRequest, name: &'static str, step: impl Future<Output = T>) -> T {
    let began = SystemTime::now();
    let done = step.await;
    if are_exported()
        && let Some(Trace(context)) = request.extensions().get::<Trace>()
    {
        finished(name, SpanKind::Internal, context, began, &[]);
    }
    done
}

/// What became of one message, from `began` until now. A message without a trace has no span.
pub fn message(
    name: &'static str,
    kind: SpanKind,
    began: SystemTime,
    attributes: &[KeyValue],
    context: impl FnOnce() -> TraceContext,
) {
    if are_exported()
        && let Some(remote) = context().remote()
    {
        finished(name, kind, &Context::new().with_remote_span_context(remote), began, attributes);
    }
}

/// Whether there is a collector.
#[must_use]
pub fn are_exported() -> bool {
    EXPORTED.get().is_some()
}

fn finished(name: &'static str, kind: SpanKind, parent: &Context, began: SystemTime, attributes: &[KeyValue]) {
    let tracer = global::tracer("orders");
    let span = tracer.span_builder(name).with_kind(kind).with_start_time(began).with_attributes(attributes.to_vec());
    span.start_with_context(&tracer, parent).end();
}

fn parent(context: &TraceContext) -> Context {
    context.remote().map_or_else(Context::new, |remote| Context::new().with_remote_span_context(remote))
}

/// The one value of a header, in visible ASCII.
/// A list may come in several headers, whose order counts.
fn combined(headers: &HeaderMap, name: &str) -> Option<String> {
    let parts: Result<Vec<_>, _> = headers.get_all(name).map(HeaderValue::to_str).collect();
    let parts: Vec<_> = parts.ok()?.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join(","))
}

fn only(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name);
    let only = values.next().filter(|_| values.next().is_none())?;
    only.to_str().ok().map(str::to_owned)
}

/// In version 00, which is all that is known here: `00-<32 hex>-<16 hex>-<2 hex>`, lowercase, ids not all zero. A
/// later version begins with the same, and may have more.
fn traceparent(text: &str) -> Option<String> {
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let id = |part: &str, length| hex(part, length) && part.bytes().any(|b| b != b'0');
    let mut parts = text.splitn(5, '-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_known = match version {
        "00" => parts.next().is_none(),
        later => hex(later, 2) && later != "ff",
    };
    let fits = is_known && id(trace, 32) && id(span, 16) && hex(flags, 2);
    fits.then(|| format!("00-{trace}-{span}-{flags}"))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderName;

    use super::*;

    const KNOWN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_list_of_vendors_in_several_headers_is_one() {
        let mut headers = HeaderMap::new();
        let of = |headers: &HeaderMap| TraceContext::of(headers).state;
        headers.insert(HeaderName::from_static("traceparent"), HeaderValue::from_static(KNOWN));
        assert_eq!(of(&headers), None);
        for value in ["a=1,b=2", "", "c=3"] {
            headers.append(HeaderName::from_static("tracestate"), HeaderValue::from_static(value));
        }
        assert_eq!(of(&headers).as_deref(), Some("a=1,b=2,c=3"));
        headers.append(HeaderName::from_static("traceparent"), HeaderValue::from_static(KNOWN));
        assert_eq!(TraceContext::of(&headers), TraceContext::default(), "which of the two?");
    }

    #[test]
    fn only_a_well_formed_parent_is_taken() {
        assert!(traceparent(KNOWN).as_deref() == Some(KNOWN));
        let later = KNOWN.replacen("00", "cc", 1);
        for later in [later.clone(), later.clone() + "-", later + "-what-the-future-will-be-like"] {
            assert_eq!(traceparent(&later).as_deref(), Some(KNOWN), "{later}");
        }
        for bad in [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "c-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(traceparent(bad).is_none(), "{bad}");
        }
    }
}
