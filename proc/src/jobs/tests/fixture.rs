//! An engine over a scratch store, and an operation that never goes well.

use super::*;
use crate::raw_json::RawJson;

/// An operation that never goes well.
struct Broken;

#[async_trait]
impl Operation for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn description(&self) -> &'static str {
        "Panics, or fails if asked to."
    }

    fn role(&self) -> Role {
        Role::Viewer
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn priority(&self) -> i64 {
        7
    }

    fn share(&self, job: &Job) -> Option<Share> {
        let shares = *job.input == "share";
        shares.then(|| Share { name: "test.broken".into(), limit: 2 })
    }

    fn unique_key(&self, job: &Job) -> Option<String> {
        job.input["only"].as_str().map(str::to_owned)
    }

    fn schema(&self) -> Value {
        json!({})
    }

    async fn run(&self, context: JobContext, input: Value) -> Result<RawJson, JobError> {
        context.log("info", "about to break".into());
        if input == "snooze" {
            return Err(JobError::put_back(Duration::from_hours(1)));
        }
        if input == "busy" {
            return Err(JobError::transient("busy", "not now").after(Duration::from_hours(2)));
        }
        assert!(input.is_string(), "broken as asked");
        Err(JobError::transient("later", "not now"))
    }
}

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    jobs: JobsConfig,
}

/// An engine with its store, and what its owner is told.
pub(super) struct Fixture {
    pub(super) tools: Tools,
    pub(super) engine: Engine,
    pub(super) settings: JobsConfig,
    pub(super) lifecycle: Lifecycle,
    pub(super) notices: Subscription,
    /// The number of the last event that was looked at.
    pub(super) seen: i64,
    _folder: TempDir,
}

impl Fixture {
    pub(super) fn new(home: Home, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bus = Bus::default();
        let notices = bus.subscribe(&Topic::user(&"ada".parse().unwrap()));
        let nowhere = vec!["http://127.0.0.1:1".parse().unwrap()];
        let peer = Peer::new(Service::Proc, nowhere, ServiceToken::random());
        let registry = Registry::built_in(true).unwrap();
        let registry = registry
            .with(
                "test",
                "For tests.",
                vec![Arc::new(Broken), Arc::new(unruly::Unruly), Arc::new(endless::Endless)],
            )
            .unwrap();
        let ingress = Ingress::new(&peer);
        let tools = Tools {
            store: match home.url() {
                None => Store::open(folder.path(), &bus).unwrap(),
                Some(url) => Store::connect(&url, &bus, None).unwrap(),
            },
            bus,
            blobs: Blobs::open(folder.path()).unwrap(),
            roles: ProjectRoles::of_everybody(ingress.clone()),
            ingress,
            registry: Arc::new(registry),
            quota: Quota::new(StorageLimit::Off),
        };
        let settings = Settings::parse_from([&["test"], settings].concat()).jobs;
        let engine = Engine::new(tools.clone(), &settings);
        Self {
            tools,
            engine,
            settings,
            lifecycle: Lifecycle::default(),
            notices,
            seen: 0,
            _folder: folder,
        }
    }

    pub(super) fn start(&self) {
        let shutdown = self.lifecycle.shutdown();
        self.lifecycle.spawn("engine", self.engine.clone().run(shutdown.clone()));
        self.lifecycle.spawn("leases", self.engine.clone().keep_leases(shutdown.clone()));
        self.lifecycle.spawn("hints", self.engine.clone().listen(shutdown));
    }

    pub(super) async fn stop(&self) {
        let drain = shared::config::DrainConfig {
            drain_delay: Duration::ZERO,
            drain_spread: Duration::ZERO,
            drain_timeout: Duration::from_secs(5),
        };
        self.lifecycle.run(async {}, &drain).await.unwrap();
    }

    pub(super) async fn submit(&self, bundle: &str, operation: &str, input: Value) -> Job {
        self.submit_as("ada", bundle, operation, input).await
    }

    pub(super) async fn submit_as(
        &self,
        owner: &str,
        bundle: &str,
        operation: &str,
        input: Value,
    ) -> Job {
        let new = NewJob {
            owner: owner.parse().unwrap(),
            project_id: ProjectId::mint(),
            bundle: bundle.into(),
            operation: operation.into(),
            input,
            trace: TraceId::mint(),
        };
        self.engine.submit(new.into(), Roles::default(), None).await.unwrap()
    }

    /// Returns the job after the next event of this type. Hints come in any order; the log has one.
    pub(super) async fn event(&mut self, kind: &str) -> Value {
        loop {
            let (topic, after) = (Topic::user(&"ada".parse().unwrap()), self.seen);
            let read = self.tools.store.read(move |reader| reader.entries(&topic, after, 1000));
            let entries = read.await.map_err(|error: shared::store::Error| error).unwrap();
            if let Some(entry) = entries.iter().find(|entry| &*entry.kind == kind) {
                self.seen = entry.position.seq;
                let data: Value = serde_json::from_str(&entry.data).unwrap();
                assert_eq!(data["type"], kind);
                return data["job"].clone();
            }
            let notice = tokio::time::timeout(Duration::from_secs(10), self.notices.next());
            notice.await.expect("in time").unwrap();
        }
    }

    pub(super) async fn find(&self, id: JobId) -> Job {
        self.tools.store.read(move |reader| store::find(reader, id)).await.unwrap()
    }

    pub(super) fn content(&self, job: &Job) -> Content {
        Content::new(job.clone(), self.tools.store.clone())
    }

    pub(super) fn mine(&self, job: &Job) -> Mine {
        Mine::new(job.clone(), self.tools.store.clone())
    }

    pub(super) async fn apply(&self, id: JobId, command: Command) -> Result<Job, Error> {
        self.tools.store.write(move |tx| store::apply(tx, id, command.clone())).await
    }

    /// Claims the next job for a worker that is not heard of after `lease`.
    pub(super) async fn claim(&self, lease: Duration) -> (Job, Claim) {
        self.claim_some(lease, 1).await.pop().expect("a job is due")
    }

    pub(super) async fn claim_some(&self, lease: Duration, free: i64) -> Vec<(Job, Claim)> {
        let worker = Uuid::now_v7();
        let until = Timestamp::now().after(lease);
        let claimed = self.tools.store.write(move |tx| {
            claims::renew(tx, worker, until)?;
            let waiting = claims::waiting_owners(tx, Timestamp::now(), free, Kind::Jobs)?;
            let mut jobs = Vec::new();
            let open = usize::try_from(free).unwrap();
            for (owner, count) in claims::share_out(waiting, open, 0, |_| true) {
                let count = i64::try_from(count).unwrap();
                jobs.extend(claims::claim(tx, worker, &owner, count, Kind::Jobs)?);
            }
            Ok::<_, Error>(jobs)
        });
        let claims = claimed.await.unwrap().into_iter();
        claims
            .map(|job| (Job::clone(&job), Claim { worker: Some(worker), fence: job.fence }))
            .collect()
    }
}
