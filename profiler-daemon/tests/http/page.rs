//! The built-in page as a browser shows it: the figures of the API, hostile names and all.

use profiler_ebpf::{Switch, ThreadRecord, switch_flags};
use schedscope::core::decode::Event;
use schedscope::core::{Core, Snapshot, Stream, UnitNews, UnitNumber};
use schedscope::daemon::http::{Figures, Guard, Limits};
use schedscope::sink::api::View;
use schedscope::sink::metrics::Scrape;
use schedscope::sink::recent::Recent;
use serde_json::Value;

use super::browser::Browser;
use super::support::{D, MS, S, START_NS, asleep, core, fork, on_cpu, scrape, switch, wakeup};
use super::{ask, body, serve_figures, status};

/// What a unit or a thread may be called: it must be shown as it is, and do nothing.
const HOSTILE_UNIT: &str =
    "<img src=x onerror=\"pwned=1\">&amp;';</td><script>pwned=1</script>.service";
const HOSTILE_COMM: &[u8] = b"</td><script>";

/// Steps of the heat map.
const ROUNDS: u64 = 30;

/// A host whose figures stay as they are.
#[derive(Clone)]
struct Still(View);

impl Figures for Still {
    async fn scrape(&self) -> anyhow::Result<Scrape> {
        Ok(scrape(self.0.snapshot.clone()))
    }

    async fn view(&self) -> anyhow::Result<View> {
        Ok(self.0.clone())
    }

    async fn events(&self) -> anyhow::Result<u64> {
        Ok(1)
    }
}

/// Two units with threads that take the CPU from one another, over and over; in each round a little longer.
fn host() -> View {
    let mut core = core(&[
        asleep(100, b"web"),
        on_cpu(101, b"web-worker", 1),
        on_cpu(102, HOSTILE_COMM, 0),
        ThreadRecord {
            tgid: 500,
            ..asleep(500, b"hog")
        },
    ]);
    core.learn_units(&UnitNews {
        named: vec![(UnitNumber(3), HOSTILE_UNIT.into())],
        placed: vec![(500, UnitNumber(3))],
        ..UnitNews::default()
    });
    let mut recent = Recent::new(std::time::Duration::from_hours(1));
    let unix_ns = |round: u64| 1_700_000_000_000_000_000 + round * 10_000 * MS;
    recent.take(&core.snapshot(), unix_ns(0));
    for round in 0..ROUNDS {
        // Now and then there is nothing to wait for.
        if round % 7 == 6 {
            core.feed(&[], at(round + 1, 0));
        } else {
            feed(&mut core, round);
        }
        recent.take(&core.snapshot(), unix_ns(round + 1));
    }
    let snapshot = core.snapshot();
    view(&core, snapshot, &recent, unix_ns(ROUNDS))
}

fn at(round: u64, ms: u64) -> u64 {
    START_NS + (round * 1_000 + ms) * MS
}

fn feed(core: &mut Core, round: u64) {
    let longer = round * 10;
    let mut cpu0 = vec![
        wakeup(at(round, 100), 100),
        switch(at(round, 101 + round), 0, 0, 100),
        switch(at(round, 200), 100, S, 0),
    ];
    if round == 0 {
        // It waits for a disk and never gets an answer.
        let to_disk = Event::Switch(Switch {
            ts_ns: at(0, 5),
            prev_tid: 102,
            prev_state: D,
            flags: switch_flags::PREV_IOWAIT,
            ..Switch::default()
        });
        cpu0.insert(0, to_disk.encode());
        cpu0.push(fork(at(0, 950), 101, 103));
    }
    let cpu1 = [
        wakeup(at(round, 400), 500),
        switch(at(round, 401), 101, 0, 500),
        switch(at(round, 451 + longer), 500, S, 101),
    ];
    let until = at(round + 1, 0);
    core.feed(&[Stream::new(&cpu0), Stream::new(&cpu1)], until);
}

fn view(core: &Core, snapshot: Snapshot, recent: &Recent, unix_ns: u64) -> View {
    View {
        unix_ns,
        window: recent.window(&snapshot),
        threads: core.threads_now(),
        columns: recent.columns().copied().collect(),
        snapshot,
    }
}

/// As the page writes times, told once more.
fn time(ns: &Value) -> String {
    let ns = ns.as_f64().expect("nanoseconds");
    for (unit, size) in [("s", 1e9), ("ms", 1e6), ("µs", 1e3)] {
        let value = ns / size;
        match value {
            100.0.. => return format!("{value:.0} {unit}"),
            10.0.. => return format!("{value:.1} {unit}"),
            1.0.. => return format!("{value:.2} {unit}"),
            _ => {}
        }
    }
    format!("{ns} ns")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The first cells of each row of a table.
fn cells(browser: &mut Browser, table: &str, columns: usize) -> Vec<Vec<String>> {
    let rows = browser.ask(&format!(
        "[...$('{table}').rows].map(row =>
          [...row.cells].slice(0, {columns}).map(cell => cell.innerText.trim()))"
    ));
    serde_json::from_value(rows).expect("rows of texts")
}

#[tokio::test]
async fn the_page_shows_what_the_api_has() {
    let Some(mut browser) = Browser::start() else {
        println!("not run: page::the_page_shows_what_the_api_has: there is no chromium");
        return;
    };
    let server = serve_figures(Still(host()), Limits::default(), Guard::default()).await;
    let address = server.address;
    let api = async |path: &str| -> Value {
        let answer = ask(address, path, "").await;
        assert_eq!(status(&answer), "200", "{answer}");
        serde_json::from_str(body(&answer)).expect("JSON")
    };
    let units = api("/api/v1/units?sort=runnable&limit=12").await;
    let work = api("/api/v1/units?sort=work_wait&limit=12").await;
    let threads = api("/api/v1/threads?sort=elapsed").await;
    let delays = api("/api/v1/delays").await;
    let shown = tokio::task::spawn_blocking(move || {
        browser.resize(1280, 900, false);
        let origin = format!("http://{address}/");
        browser.open(&origin);
        browser.until("document.getElementById('state').textContent.startsWith('as of ')");
        tables(&mut browser, &units, &work, &threads);
        charts(&mut browser, &delays);
        nothing_happened(&mut browser, &origin);
        looks(&mut browser);
        browser
    });
    let mut browser = shown.await.expect("the page is right");
    // A service that is gone is said to be.
    server.stop.send(()).expect("it runs");
    server.task.await.expect("it ends");
    let shown = tokio::task::spawn_blocking(move || {
        browser.ask("void refresh()");
        browser.until("document.getElementById('state').textContent.startsWith('no answer: ')");
    });
    shown.await.expect("the page says so");
}

fn tables(browser: &mut Browser, units: &Value, work: &Value, threads: &Value) {
    let rows = |list: &Value| list.as_array().expect("a list").clone();
    let positive = |row: &Value, field: &str| row[field].as_u64().is_some_and(|ns| ns > 0);
    let expected: Vec<_> = rows(&units["units"])
        .iter()
        .filter(|unit| positive(unit, "runnable_ns"))
        .map(|unit| {
            let p99 = &unit["runqueue_delay"]["p99_ns"];
            vec![text(&unit["unit"]), time(&unit["runnable_ns"]), time(p99)]
        })
        .collect();
    assert!(expected.len() >= 2, "{units}");
    assert!(expected.iter().any(|row| row[0] == HOSTILE_UNIT));
    assert_eq!(cells(browser, "queue", 3), expected);

    let expected: Vec<_> = rows(&work["units"])
        .iter()
        .filter(|unit| positive(unit, "work_wait_ns"))
        .map(|unit| vec![text(&unit["unit"]), time(&unit["work_wait_ns"])])
        .collect();
    assert!(!expected.is_empty(), "{work}");
    assert_eq!(cells(browser, "work", 2), expected);

    let expected: Vec<_> = rows(&units["interference"])
        .iter()
        .map(|pair| {
            let itself = pair["victim"] == pair["culprit"];
            let culprit = if itself {
                "itself".to_owned()
            } else {
                text(&pair["culprit"])
            };
            vec![text(&pair["victim"]), culprit, time(&pair["ns"])]
        })
        .collect();
    assert!(
        expected
            .iter()
            .any(|row| row[0] == "web.service" && row[1] == HOSTILE_UNIT),
        "{expected:?}"
    );
    assert_eq!(cells(browser, "pairs", 3), expected);

    let expected: Vec<_> = rows(&threads["threads"])
        .iter()
        .filter(|thread| {
            let works = thread["idle"] == false && thread["reason"] != "unknown";
            thread["state"] == "runnable" || (thread["state"] == "blocked" && works)
        })
        .map(|thread| {
            let name = format!("{} ({})", text(&thread["comm"]), thread["tid"]);
            vec![name, text(&thread["unit"])]
        })
        .collect();
    assert!(!expected.is_empty(), "{threads}");
    assert_eq!(cells(browser, "now", 2), expected);

    let tiles = browser.texts("#tiles .tile");
    let p99 = time(&units["host"]["runqueue_delay"]["p99_ns"]);
    assert_eq!(tiles[0], format!("{p99}\nP99 of run-queue delay"));
}

fn charts(browser: &mut Browser, delays: &Value) {
    let columns = delays["columns"].as_array().expect("columns");
    assert_eq!(columns.len() as u64, ROUNDS);
    let p99s: Vec<f64> = columns
        .iter()
        .filter_map(|column| column["p99_ns"].as_f64().filter(|ns| *ns > 0.0))
        .collect();
    assert!((10..columns.len()).contains(&p99s.len()), "{p99s:?}");
    // The line has one point for each column with delays, the higher the longer, and gaps for the others.
    let path = text(&browser.ask("document.querySelector('#p99 path').getAttribute('d')"));
    let heights: Vec<f64> = path
        .split(['M', 'L'])
        .skip(1)
        .map(|point| {
            let y = point.split(' ').nth(1).expect("two numbers");
            y.trim_end_matches("h0").parse().expect("a number")
        })
        .collect();
    assert_eq!(heights.len(), p99s.len(), "{path}");
    for (ns, y) in p99s.windows(2).zip(heights.windows(2)) {
        assert_eq!(ns[0] < ns[1], y[1] < y[0], "{ns:?} {y:?}");
    }
    assert_eq!(path.matches('M').count(), 5, "{path}");
    // Each cell of the heat map with delays is painted, and no other.
    let wrong = browser.ask(
        "(() => { const canvas = $('heat'), { edge, w, h, rows, first } = heat.place;
          const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
          return heat.columns.flatMap((column, number) => column.counts.map((count, row) => {
            const x = edge + (number + first + 0.5) * w, y = (rows - 1 - row + 0.5) * h;
            const painted = pixels[4 * (Math.floor(y) * canvas.width + Math.floor(x)) + 3] > 0;
            return painted === count > 0 ? null : [number, row, count];
          })).filter(cell => cell); })()",
    );
    assert_eq!(wrong, Value::Array(Vec::new()), "painted wrongly");
    // The pointer on a cell tells what it stands for.
    let row = columns[0]["counts"].as_array().expect("counts");
    let row = row.iter().position(|count| *count != 0).expect("delays");
    let tip = browser.ask(&format!(
        "(() => {{ const box = $('heat').getBoundingClientRect(), {{ edge, w, h, rows, first }} = heat.place;
          $('heat').dispatchEvent(new MouseEvent('mousemove', {{
            clientX: box.left + edge + (first + 0.5) * w, clientY: box.top + (rows - 1 - {row} + 0.5) * h }}));
          return $('tip').textContent; }})()"
    ));
    let tip = text(&tip);
    let count = &columns[0]["counts"][row];
    let expected = format!(": {count} waits of ");
    let p99 = format!("; P99 {}", time(&columns[0]["p99_ns"]));
    assert!(tip.contains(&expected) && tip.ends_with(&p99), "{tip}");
}

/// No name was taken for anything but a name, nothing was loaded from elsewhere, nothing went wrong.
fn nothing_happened(browser: &mut Browser, origin: &str) {
    assert_eq!(browser.ask("typeof pwned"), "undefined");
    assert_eq!(browser.ask("document.images.length"), 0);
    assert_eq!(browser.ask("document.scripts.length"), 1);
    let requests = browser.requests();
    assert!(requests.len() >= 5, "{requests:?}");
    for request in requests {
        let is_own = request.starts_with(origin) || request == "data:,";
        assert!(is_own, "it asked for {request}");
    }
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// Light, dark and on a telephone; the pictures are for people.
fn looks(browser: &mut Browser) {
    let mut backgrounds = Vec::new();
    for (name, width, dark) in [
        ("light", 1280, false),
        ("dark", 1280, true),
        ("narrow", 390, true),
    ] {
        browser.resize(width, 900, dark);
        browser.until("new Promise(done => requestAnimationFrame(() => done(true)))");
        let background = browser.ask("getComputedStyle(document.body).backgroundColor");
        backgrounds.push(text(&background));
        let fits = browser.ask("document.documentElement.scrollWidth <= innerWidth");
        assert_eq!(fits, true, "{name}: it is wider than the window");
        println!("{}", browser.picture(&format!("page-{name}")).display());
    }
    assert_ne!(backgrounds[0], backgrounds[1]);
    assert_eq!(backgrounds[1], backgrounds[2]);
}
