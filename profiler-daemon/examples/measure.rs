use schedscope::source::{Counting, Kernel, Options};
use schedscope::source::evidence::EvidenceTargets;
use std::io::{Read, Write};
use std::time::{Duration, Instant};
fn pin(cpu: usize) { let mut s = rustix::thread::CpuSet::new(); s.set(cpu); rustix::thread::sched_setaffinity(None, &s).unwrap(); }
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let what = args[0].as_str();
    let _c = Counting::start().unwrap();
    let base = Options { ring_records: 1 << 16, ..Options::PLAIN };
    let variants: Vec<(&str, Options)> = vec![
        ("plain", base),
        ("calls", Options { syscalls: true, ..base }),
        ("throttling", Options { throttling: true, ..base }),
        ("evidence", Options { stacks: Some(1_000_000), ..base }),
        ("all", Options { syscalls: true, wakers: true, throttling: true, stacks: Some(1_000_000), ..base }),
    ];
    let mut best = vec![f64::MAX; variants.len()];
    for _ in 0..6 {
        for (v, (_, o)) in variants.iter().enumerate() {
            let mut k = Kernel::start(o).unwrap();
            k.set_evidence_targets(EvidenceTargets::Processes(&[1])).unwrap();
            let end = Instant::now() + Duration::from_millis(400);
            let ths: Vec<_> = if what == "yield" {
                (0..2).map(|_| std::thread::spawn(move || { pin(1); while Instant::now() < end { for _ in 0..100 { rustix::thread::sched_yield(); } } })).collect()
            } else {
                let (mut r1, mut w1) = std::io::pipe().unwrap();
                let (mut r2, mut w2) = std::io::pipe().unwrap();
                vec![std::thread::spawn(move || { pin(1); let mut b = [0]; while Instant::now() < end { let _ = w1.write(b"x"); if r2.read(&mut b).unwrap_or(0) == 0 { break } } }),
                     std::thread::spawn(move || { pin(1); let mut b = [0]; while Instant::now() < end { if r1.read(&mut b).unwrap_or(0) == 0 { break } let _ = w2.write(b"x"); } })]
            };
            let mut used = vec![0; k.cpus() + 1];
            while Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
                k.drain(|s| { for (u, s) in used.iter_mut().zip(s) { *u = s.len(); } &used });
            }
            for t in ths { t.join().unwrap(); }
            let stats = k.probe_stats();
            let s = stats.iter().find(|s| s.name.starts_with("sched_switch")).unwrap();
            let ns = s.run_time_ns as f64 / s.runs as f64;
            best[v] = best[v].min(ns);
            if v == 0 { eprint!("{} ", s.runs) }
        }
    }
    eprintln!();
    for (v, (n, _)) in variants.iter().enumerate() { println!("{what} {n}: {:.1}", best[v]); }
}
