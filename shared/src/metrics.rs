//! Figures for operators, in the text format of `OpenMetrics`: what was asked, how it was answered, and what services add.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, header};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::{Family, MetricConstructor},
        gauge::ConstGauge,
        histogram::Histogram,
    },
    registry::{Metric, Registry},
};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Bounds of the histogram in seconds: a send takes milliseconds, a long poll 25 seconds.
const SECONDS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0];

/// The figures of one service; a clone is the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    requests: Family<Answer, Counter>,
    seconds: Family<Route, Histogram, Seconds>,
}

/// Labels come from closed sets: a client must not make series by what it sends.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answer {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    method: &'static str,
    route: String,
}

#[derive(Clone, Debug)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

/// A figure that is read when somebody asks for it.
struct Read<F> {
    name: &'static str,
    help: &'static str,
    r#type: MetricType,
    value: F,
}

impl<F> fmt::Debug for Read<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<F: Fn() -> Option<u64> + Send + Sync + 'static> Collector for Read<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(value) = (self.value)() else { return Ok(()) };
        let encoder = encoder.encode_descriptor(self.name, self.help, None, self.r#type)?;
        match self.r#type {
            MetricType::Counter => ConstCounter::new(value).encode(encoder),
            _ => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder),
        }
    }
}

/// How long something took, each time; a clone is the same figure.
#[derive(Clone, Debug)]
pub struct Timer(Histogram);

impl Default for Timer {
    fn default() -> Self {
        Self(Histogram::new(SECONDS))
    }
}

impl Timer {
    /// Counts one time.
    pub fn observe(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("parley");
        let requests = Family::<Answer, Counter>::default();
        let seconds = Family::<Route, Histogram, Seconds>::new_with_constructor(Seconds);
        registry.register("http_requests", "Requests that were answered", requests.clone());
        registry.register(
            "http_request_seconds",
            "Time to an answer, of a stream to its opening",
            seconds.clone(),
        );
        Self { registry: Arc::new(Mutex::new(registry)), requests, seconds }
    }
}

impl Metrics {
    /// Adds what goes up and down, as `parley_<name>`; `None` leaves it out for now.
    pub fn gauge<F>(&self, name: &'static str, help: &'static str, value: F)
    where
        F: Fn() -> Option<u64> + Send + Sync + 'static,
    {
        self.add(Read { name, help, r#type: MetricType::Gauge, value });
    }

    /// Adds what only grows, as `parley_<name>_total`.
    pub fn counter<F>(&self, name: &'static str, help: &'static str, value: F)
    where
        F: Fn() -> u64 + Send + Sync + 'static,
    {
        let value = move || Some(value());
        self.add(Read { name, help, r#type: MetricType::Counter, value });
    }

    /// Adds how long something takes, as `parley_<name>`.
    pub fn timer(&self, name: &'static str, help: &'static str, timer: &Timer) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register(name, help, timer.0.clone());
    }

    /// Adds a metric of several labels, as `parley_<name>`.
    pub(crate) fn register(&self, name: &'static str, help: &'static str, metric: impl Metric) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register(name, help, metric);
    }

    fn add(&self, collector: impl Collector) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(collector));
    }

    /// Counts every request of `routes`, by their paths as they are declared.
    pub fn watch(&self, routes: Router) -> Router {
        routes.layer(middleware::from_fn_with_state(self.clone(), count))
    }

    /// Answers whoever collects the figures.
    #[must_use]
    pub fn show(&self) -> Response {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match encode(&mut text, &registry) {
            Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

async fn count(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = known(request.method());
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or_else(String::new, |path| path.as_str().to_owned());
    let answer = next.run(request).await;
    let status = answer.status().as_u16();
    metrics.requests.get_or_create(&Answer { method, route: route.clone(), status }).inc();
    let seconds = began.elapsed().as_secs_f64();
    metrics.seconds.get_or_create(&Route { method, route }).observe(seconds);
    answer
}

fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
