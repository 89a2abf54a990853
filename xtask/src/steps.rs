//! The steps.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::contracts;
use crate::run::{Failure, cargo, root, run};
use crate::setup::{self, tool};

/// One step of the work on this project.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) proves: &'static str,
    pub(crate) run: fn(&[String]) -> Result<(), Failure>,
}

const fn step(name: &'static str, proves: &'static str, run: fn(&[String]) -> Result<(), Failure>) -> Step {
    Step { name, proves, run }
}

/// Every step, in the order of the help text.
pub(crate) const STEPS: &[Step] = &[
    step("demo", "install what a build needs, then play the lab demo on embedded defaults", demo),
    step("test", "install what the tests need, then run all of them", test),
    step("setup", "only install what the build, the tests and the checks need", |_| setup::for_tests()),
    step("fmt", "the code is formatted", fmt),
    step("lint", "clippy finds nothing", lint),
    step("deny", "licences, bans and sources of all dependencies are as deny.toml says", deny),
    step(
        "contract",
        "what is served against the OpenAPI files of 3GPP, as described and as it runs [REQUESTS for each operation, default 300]",
        contract,
    ),
    step("docs", "the API documentation builds without a broken link", docs),
    step("crash", "kill -9 under load loses nothing and repeats nothing [ROUNDS, default 100]", crash),
    step(
        "soak",
        "memory stays flat under mixed load [MINUTES, default 60 [MESSAGES a second, default 1500 [low or default bounds]]]",
        soak,
    ),
    step("fuzz-smoke", "every parser of outside bytes survives a short fuzz run", |_| {
        fuzz_each("10", FUZZ_TARGETS, processors())
    }),
    step(
        "fuzz",
        "the same for long [--jobs N, targets at once, default one for each processor] [SECONDS for each target, default 3600] [TARGET...]",
        fuzz,
    ),
    step("bench", "figures beside the best known peers, from a release build", bench),
    step("ci", "all of the above but demo, fuzz and bench, with crash and soak at a fraction of their length", ci),
];

/// The fuzz targets of `fuzz/Cargo.toml`.
const FUZZ_TARGETS: &[&str] = &[
    "a_kid",
    "access_token",
    "akma_exchange",
    "application_request",
    "capif",
    "client_assertion",
    "coap_datagram",
    "coap_stream",
    "dtls_handshake",
    "dtls_record",
    "dtls_server",
    "dtls_session13",
    "eap_packet",
    "event_stream",
    "exposure_notification",
    "group_document",
    "http_digest",
    "naanf",
    "nf_types",
    "nrf_request",
    "oscore",
    "oscore_blocks",
    "oscore_connection",
    "psk_identity",
    "reassembler",
    "relay_destination",
    "su_uc_query",
    "suci",
    "tls_handshake",
    "tls_record",
    "token_request",
    "ts29538",
    "ue_answer",
    "ue_configuration",
    "ue_message",
    "websocket",
];

fn demo(arguments: &[String]) -> Result<(), Failure> {
    setup::for_build()?;
    run(
        "build of msgin5g, optimised (a few minutes the first time)",
        cargo().args(["build", "--release", "-p", "msgin5g"]),
    )?;
    let directory = root().join("target").join("lab-demo");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)
            .map_err(|error| format!("cannot empty {}: {error}", directory.display()))?;
    }
    let program = root().join("target").join("release").join("msgin5g");
    run("msgin5g lab --demo", Command::new(program).args(["lab", "--demo", "--dir"]).arg(directory).args(arguments))
}

fn test(arguments: &[String]) -> Result<(), Failure> {
    setup::for_tests()?;
    // Many of them wait for somebody's time-out: half as many again as there are processors keep those busy.
    let threads = (processors() * 3).div_ceil(2).to_string();
    let mut nextest = Command::new(tool("cargo-nextest"));
    nextest.current_dir(root()).args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    if std::env::var_os(TEST_THREADS).is_none() {
        nextest.env(TEST_THREADS, threads);
    }
    nextest.args(arguments);
    run("tests", &mut nextest)?;
    run("documentation examples", cargo().args(["test", "--doc", "--workspace", "--quiet"]))
}

/// Of nextest; an argument goes before it.
const TEST_THREADS: &str = "NEXTEST_TEST_THREADS";

fn fmt(_: &[String]) -> Result<(), Failure> {
    run("formatting", cargo().args(["fmt", "--all", "--check"]))
}

fn lint(_: &[String]) -> Result<(), Failure> {
    setup::for_build()?;
    run("clippy", cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
}

fn deny(_: &[String]) -> Result<(), Failure> {
    setup::for_tests()?;
    let mut deny = Command::new(tool("cargo-deny"));
    run(
        "cargo deny",
        deny.current_dir(root()).args([
            "--workspace",
            "check",
            "--hide-inclusion-graph",
            "bans",
            "licenses",
            "sources",
        ]),
    )
}

fn contract(arguments: &[String]) -> Result<(), Failure> {
    // Without them there is nothing to compare with, and the tests pass.
    let contracts = contracts::folder()?;
    setup::for_tests()?;
    let requests = arguments.first().map_or("300", String::as_str);
    let mut nextest = Command::new(tool("cargo-nextest"));
    // The test of every run makes a fraction of them.
    nextest.current_dir(root()).env("MSGIN5G_CONTRACT_EXAMPLES", requests).env(contracts::VARIABLE, contracts);
    nextest.args(["nextest", "run", "--profile", "contract", "-p", "sbi", "-p", "msgin5g", "--test", "contract"]);
    run("contract", nextest.arg("--no-capture"))
}

fn docs(_: &[String]) -> Result<(), Failure> {
    setup::for_build()?;
    run(
        "documentation",
        cargo().args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"),
    )
}

fn crash(arguments: &[String]) -> Result<(), Failure> {
    setup::for_tests()?;
    let rounds = arguments.first().map_or("100", String::as_str);
    let mut nextest = Command::new(tool("cargo-nextest"));
    nextest.current_dir(root());
    // The tests of every run are the same at a fraction of this.
    nextest.env("MSGIN5G_CRASH_ROUNDS", rounds);
    nextest.env("MSGIN5G_CRASH_UES", "1000").env("MSGIN5G_CRASH_MESSAGES", "100000");
    nextest.args(["nextest", "run", "--release", "--profile", "crash", "-p", "msgin5g"]);
    run("kill -9 under load", nextest.args(["--test", "crash", "--test", "crash_bulk", "--no-capture"]))
}

fn soak(arguments: &[String]) -> Result<(), Failure> {
    setup::for_tests()?;
    let minutes = arguments.first().map_or(Ok(60), |minutes| minutes.parse::<u64>());
    let seconds = minutes.map_err(|error| format!("soak takes a number of minutes: {error}"))? * 60;
    let rate =
        arguments.get(1).map_or(Ok(1_500), |rate| rate.parse::<std::num::NonZeroU32>().map(std::num::NonZeroU32::get));
    let rate = rate.map_err(|error| format!("soak takes messages a second after the minutes: {error}"))?;
    let bounds = arguments.get(2).map_or("low", String::as_str);
    if !["low", "default"].contains(&bounds) {
        return Err(format!("the bounds of a soak are low or default, not {bounds:?}"));
    }
    let mut nextest = Command::new(tool("cargo-nextest"));
    nextest.current_dir(root()).env("MSGIN5G_SOAK_SECONDS", seconds.to_string());
    nextest.env("MSGIN5G_SOAK_RATE", rate.to_string()).env("MSGIN5G_SOAK_BOUNDS", bounds);
    nextest.args(["nextest", "run", "--release", "--profile", "crash", "-p", "msgin5g"]);
    run("mixed load", nextest.args(["--test", "soak", "--no-capture"]))
}

fn fuzz(arguments: &[String]) -> Result<(), Failure> {
    let (jobs, rest) = match arguments {
        [flag, jobs, rest @ ..] if flag == "--jobs" => {
            let jobs = jobs.parse::<std::num::NonZeroUsize>();
            (jobs.map_err(|error| format!("--jobs takes a number of targets: {error}"))?.get(), rest)
        }
        _ => (processors(), arguments),
    };
    let seconds = rest.first().map_or("3600", String::as_str);
    let chosen: Vec<&str> = rest.iter().skip(1).map(String::as_str).collect();
    if let Some(unknown) = chosen.iter().find(|target| !FUZZ_TARGETS.contains(target)) {
        return Err(format!("no fuzz target {unknown:?}; there are: {}", FUZZ_TARGETS.join(", ")));
    }
    fuzz_each(seconds, if chosen.is_empty() { FUZZ_TARGETS } else { &chosen }, jobs)
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs each of `targets` for so many seconds, `jobs` of them at once.
fn fuzz_each(seconds: &str, targets: &[&str], jobs: usize) -> Result<(), Failure> {
    setup::for_tests()?;
    let directory = root().join("fuzz");
    let mut build = Command::new(tool("cargo-fuzz"));
    // Without the address sanitizer the targets build on a stable compiler; the crates under test forbid unsafe code.
    // OpenSSL is not what is fuzzed, so the system's serves and saves compiling it once more.
    build.current_dir(root()).env("RUSTC_BOOTSTRAP", "1").env("OPENSSL_NO_VENDOR", "1");
    run("build of the fuzz targets", build.args(["fuzz", "build", "--sanitizer", "none", "--target", &host()?]))?;
    let programs = directory.join("target").join(host()?).join("release");
    let logs = root().join("target").join("fuzz");
    std::fs::create_dir_all(&logs).map_err(|error| format!("cannot make {}: {error}", logs.display()))?;
    println!("==> fuzz: {} targets, {seconds} s each; what they print is in {}", targets.len(), logs.display());

    let next = AtomicUsize::new(0);
    let work = || -> Result<(), Failure> {
        while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            fuzz_one(&programs.join(target), &directory, &logs, target, seconds)?;
        }
        Ok(())
    };
    let results: Vec<Result<(), Failure>> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..jobs.min(targets.len())).map(|_| scope.spawn(work)).collect();
        started.into_iter().map(|each| each.join().unwrap_or_else(|_| Err("a worker panicked".to_owned()))).collect()
    });
    results.into_iter().collect()
}

/// One target: what it learns is kept in `fuzz/corpus`, what breaks it in `fuzz/artifacts`.
fn fuzz_one(program: &Path, directory: &Path, logs: &Path, target: &str, seconds: &str) -> Result<(), Failure> {
    let (corpus, artifacts) = (directory.join("corpus").join(target), directory.join("artifacts").join(target));
    for each in [&corpus, &artifacts] {
        std::fs::create_dir_all(each).map_err(|error| format!("cannot make {}: {error}", each.display()))?;
    }
    let log = logs.join(format!("{target}.log"));
    let cannot_write = |error| format!("cannot write {}: {error}", log.display());
    let output = std::fs::File::create(&log).map_err(cannot_write)?;
    let errors = output.try_clone().map_err(cannot_write)?;
    let mut fuzz = Command::new(program);
    fuzz.arg(&corpus);
    // What mutation alone does not find: words that a text begins with.
    let seeds = directory.join("seeds").join(target);
    if seeds.exists() {
        fuzz.arg(seeds);
    }
    fuzz.arg(format!("-artifact_prefix={}/", artifacts.display()));
    fuzz.arg(format!("-max_total_time={seconds}")).args(["-timeout=5", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    let ran = run(&format!("fuzz {target} for {seconds} s"), fuzz.stdout(output).stderr(errors));
    let printed = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
    let line = |name: &str| printed.lines().find_map(|line| line.strip_prefix(name)).map_or("?", str::trim).to_owned();
    if let Err(failure) = ran {
        let lines: Vec<&str> = printed.lines().collect();
        let last = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n");
        return Err(format!("{last}\n{failure}"));
    }
    // Its last line of progress: ... cov: EDGES ft: ...
    let edges = printed.lines().rev().find_map(|line| line.split_once(" cov: ")?.1.split(' ').next());
    println!("    {target}: {} inputs, {} edges", line("stat::number_of_executed_units:"), edges.unwrap_or("?"));
    Ok(())
}

/// The compiler's name of the machine that this runs on.
fn host() -> Result<String, Failure> {
    let printed = Command::new("rustc")
        .current_dir(root())
        .arg("-vV")
        .output()
        .map_err(|error| format!("cannot start rustc: {error}"))?;
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    let host = printed.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".to_owned())
}

fn bench(arguments: &[String]) -> Result<(), Failure> {
    setup::for_tests()?;
    run("build, optimised", cargo().args(["build", "--release", "-p", "msgin5g", "-p", "bench"]))?;
    let program = root().join("target").join("release").join("bench");
    run("bench", Command::new(program).current_dir(root()).args(arguments))
}

fn ci(_: &[String]) -> Result<(), Failure> {
    for each in [fmt, lint, deny, docs, test] {
        each(&[])?;
    }
    fuzz_each("10", FUZZ_TARGETS, processors())
}
