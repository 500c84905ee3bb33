//! vzd: command line, log, lock, signals. What it does is in the library.

mod man;

use anyhow::{Context, bail};
use clap::{CommandFactory, Parser, Subcommand};
use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};
use vz_types::{ManagerConfig, Paths};
use vzd::{
    accounts, api, conf, error, fault, guard,
    hands::Hands,
    manager::Manager,
    network::Network,
    ops::{self, Ops, recover as recovery},
};

/// The vz daemon: manages the containers below one root.
#[derive(Parser, Debug)]
#[command(name = "vzd", version)]
struct Args {
    /// Everything of this manager is below DIR.
    #[arg(long, env = "VZ_ROOT", default_value = "/", value_name = "DIR")]
    root: PathBuf,
    /// Log to standard error even where the journal is there.
    #[arg(long)]
    foreground: bool,
    /// What to log: error, warn, info, debug or trace, or a tracing filter.
    #[arg(long, env = "VZ_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// One JSON object per log line on standard error.
    #[arg(long)]
    log_json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Build the inventory anew from configuration files and private areas.
    Recover,
    /// Print the man page.
    #[command(hide = true)]
    Man,
    /// Print the OpenAPI document.
    Openapi,
    /// Print the number of the inventory's schema, for the package's scripts.
    #[command(hide = true)]
    Schema,
    /// Print every fault point for crash tests.
    #[command(hide = true)]
    FaultPoints,
    /// Unpack an archive for the vzd that started this.
    #[command(hide = true)]
    Unpack,
}

/// A failure that trying again does not cure: systemd is told not to (`RestartPreventExitStatus=` in vzd.service).
#[derive(Debug)]
struct NeedsOperator(String);

impl std::fmt::Display for NeedsOperator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NeedsOperator {}

fn main() -> ExitCode {
    // The modes of what is made (cgroups above all) are no matter of who started us.
    vz_sys::inherited::own_files_readable();
    vz_sys::inherited::wait_for_children();
    let args = Args::parse();
    let done = match args.command {
        Some(Command::Man) => man::page(Args::command()).and_then(|page| print(&page)),
        Some(Command::Unpack) => return vzd::unpack::main(),
        Some(Command::Openapi) => print(&api::document()),
        Some(Command::Schema) => print(&format!("{}\n", vzd::inventory::STEPS.len())),
        Some(Command::FaultPoints) => print(&(ops::points().join("\n") + "\n")),
        Some(Command::Recover) => recover(&args),
        None => serve(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vzd: {e:#}");
            let code = match e.downcast_ref::<NeedsOperator>() {
                Some(_) => vz_types::ExitCode::BadConfig,
                None => vz_types::ExitCode::System,
            };
            ExitCode::from(code.code())
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

fn paths(args: &Args) -> anyhow::Result<Paths> {
    // Every name derived from the root must be the same however it is spelled.
    fs::create_dir_all(&args.root).with_context(|| format!("making the root {}", args.root.display()))?;
    let root = fs::canonicalize(&args.root).with_context(|| format!("finding the root {}", args.root.display()))?;
    Ok(Paths::new(root))
}

fn recover(args: &Args) -> anyhow::Result<()> {
    let paths = paths(args)?;
    let _lock = Lock::take(&paths)?;
    for line in recovery::rebuild(&paths).map_err(|e| anyhow::anyhow!(e.report()))? {
        print(&format!("{line}\n"))?;
    }
    Ok(())
}

fn serve(args: &Args) -> anyhow::Result<()> {
    vz_sys::heap::be_thrifty();
    start_log(args)?;
    if !nix::unistd::geteuid().is_root() {
        bail!("it must run as root");
    }
    let paths = paths(args)?;
    let _lock = Lock::take(&paths)?;
    let config = manager_config(&paths)?;
    known_fault()?;
    raise_limits();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Nothing is done on them: see `vzd::pool`.
        .max_blocking_threads(1)
        .thread_stack_size(512 << 10)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let told = |e: &error::Error| {
        let hint = e.hint().map_or_else(String::new, |h| format!(" ({h})"));
        format!("{}{hint}", e.report())
    };
    let network = Network::new(&paths, &config.network).map_err(|e| anyhow::anyhow!(told(&e.into())))?;
    let network = Arc::new(network);
    let hands = Hands::real(&paths, config.vzmon.as_deref(), config.cgroup_root.as_deref(), network.clone());
    let manager = Manager::open(paths.clone(), config, hands).map_err(|e| match &e {
        error::Error::Inventory(i) if i.needs_operator() => anyhow::Error::new(NeedsOperator(told(&e))),
        _ => anyhow::anyhow!(told(&e)),
    })?;
    let ops = Ops::new(manager, runtime.handle().clone()).context("starting threads")?;
    let (monitors, last) = (ops.m.clone(), ops.m.clone());
    ops.pools.aside.post(move || monitors.hands.monitor.warm());
    recovery::take_up(&ops).map_err(|e| anyhow::anyhow!(e.report()))?;
    let socket = paths.socket();
    runtime.block_on(async {
        let listener = api::Listener::bind(&socket).with_context(|| format!("serving on {}", socket.display()))?;
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut int = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        // What recovery does at once is done before the first is answered, unless it takes long.
        ops.settled(AT_ONCE).await;
        notify(&[sd_notify::NotifyState::Ready]);
        tracing::info!(root = %paths.base.display(), socket = %socket.display(), version = env!("CARGO_PKG_VERSION"), "serving");
        guard::start(&ops, network).context("starting the thread that guards the network")?;
        accounts::keep(&ops.m).context("starting the thread that keeps the accounts")?;
        tokio::spawn(ops::start_at_boot(ops.clone()));
        tokio::spawn(keep_house(ops.clone()));
        let warming = ops.m.clone();
        ops.pools.heavy.post(move || warming.templates.warm());
        api::serve(listener, api::router(ops.clone()), async {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            ops.m.quit();
            notify(&[sd_notify::NotifyState::Stopping]);
            ops.give_up_heavy();
            // Those that only wait for somebody are gone on with by the next vzd.
            ops.quiet(LAST).await;
            ops.m.catch_up();
        })
        .await;
        anyhow::Ok(())
    })?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Err(e) = last.inventory.leave() {
        tracing::debug!("{e}");
    }
    tracing::info!("ended; containers keep running");
    Ok(())
}

/// How long the first answer waits for what recovery does at once.
const AT_ONCE: Duration = Duration::from_millis(250);
/// How long vzd waits, before it ends, for what is being done.
const LAST: Duration = Duration::from_secs(20);
/// Between two looks at what could not be understood.
const AGAIN: Duration = Duration::from_secs(5);

/// What is to be done from time to time.
async fn keep_house(ops: Arc<Ops>) {
    let mut ticks = tokio::time::interval(AGAIN);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count: u64 = 0;
    loop {
        ticks.tick().await;
        let of = ops.clone();
        // At the start, and once an hour.
        let hour = count % (3600 / AGAIN.as_secs()) == 0;
        count += 1;
        let done = ops.pools.look.run(move || {
            of.m.catch_up();
            recovery::look_again(&of);
            of.m.tell_reboots();
            if hour {
                recovery::prune(&of.m);
            }
        });
        let _ = done.await;
    }
}

fn known_fault() -> anyhow::Result<()> {
    let known = |point: &str| ops::points().iter().any(|p| p == point);
    match fault::Fault::from_env().point() {
        Some(point) if !known(point) => {
            bail!("{} names no fault point; `vzd fault-points` lists them", fault::FAULT_ENV)
        }
        _ => Ok(()),
    }
}

/// As many descriptors as the kernel gives: one per running container, and some.
fn raise_limits() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const WANTED: u64 = 1 << 16;
    let now = getrlimit(Resource::Nofile);
    let enough = |n: Option<u64>| n.is_none_or(|n| n >= WANTED);
    if enough(now.current) {
        return;
    }
    let wish = Rlimit { current: Some(WANTED), maximum: Some(now.maximum.unwrap_or(WANTED).max(WANTED)) };
    let most = Rlimit { current: now.maximum, maximum: now.maximum };
    if setrlimit(Resource::Nofile, wish).or_else(|_| setrlimit(Resource::Nofile, most)).is_err() {
        tracing::warn!("vzd can have few descriptors open ({:?})", now.current);
    }
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::debug!("no word to the service manager: {e}");
    }
}

fn start_log(args: &Args) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("rusqlite_migration=warn,{}", args.log))
        .with_context(|| format!("`{}` is no log filter", args.log))?;
    let registry = tracing_subscriber::registry().with(filter);
    if !args.foreground && !args.log_json {
        if let Ok(journal) = tracing_journald::layer() {
            registry.with(journal).init();
            return Ok(());
        }
    }
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    if args.log_json {
        registry.with(layer.json()).init();
    } else {
        registry.with(layer).init();
    }
    Ok(())
}

fn manager_config(paths: &Paths) -> anyhow::Result<ManagerConfig> {
    let path = paths.manager_config();
    let text = match vz_sys::records::operators_text(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(ManagerConfig::default()),
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    toml::from_str(&text).map_err(|e| NeedsOperator(conf::located(&path, &text, &e).to_string()).into())
}

/// How long the lock of a vzd that is gone may still be held by what it was starting.
const LOCK_TIME: Duration = Duration::from_secs(3);

/// The one vzd of a root: a lock the kernel gives back however this process ends.
struct Lock {
    _file: File,
}

impl Lock {
    fn take(paths: &Paths) -> anyhow::Result<Self> {
        let path = paths.lock();
        let dir: &Path = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            // Whatever lies there is not waited for.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        let until = Instant::now() + LOCK_TIME;
        while rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            file.rewind()
                .and_then(|()| (&file).take(32).read_to_string(&mut holder))
                .context("reading the lock's holder")?;
            let holder = holder.trim();
            // A program vzd was about to execute when it was killed holds the lock for a moment longer.
            let alive = holder.is_empty() || Path::new("/proc").join(holder).exists();
            if alive || Instant::now() >= until {
                bail!(
                    "another vzd (pid {holder}) already serves the root {}; stop it first, or choose another --root",
                    paths.base.display()
                );
            }
            let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            let _ = rustix::event::poll(&mut [], Some(&pause));
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}
