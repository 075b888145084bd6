//! What other programs print, and the kernel's files, as figures.

use std::collections::BTreeMap;

/// What `perf sched timehist` says of a thread, summed, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timehist {
    /// Lines: times that it had a CPU, and left it.
    pub(crate) stints: u64,
    /// Off a CPU, whatever for: from one stint to the next.
    pub(crate) off_ns: u64,
    /// Of that, from a wakeup on.
    pub(crate) delay_ns: u64,
    /// On a CPU.
    pub(crate) run_ns: u64,
}

/// Reads the lines of `perf sched timehist`, by thread id.
///
/// `    6513.052379 [0001]  spinner-1[815/812]      2.997      0.000      3.000 `: a process's first thread
/// is shown without its process id, an idle CPU as `<idle>`.
pub(crate) fn timehist(text: &str) -> BTreeMap<u32, Timehist> {
    let mut threads: BTreeMap<u32, Timehist> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace().rev();
        let (Some(run), Some(delay), Some(off)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let (Some(run), Some(delay), Some(off)) = (milli(run), milli(delay), milli(off)) else {
            continue;
        };
        let name = words.next().unwrap_or_default();
        let ids = name
            .rsplit_once('[')
            .map(|(_, ids)| ids.trim_end_matches(']'));
        let tid = ids.and_then(|ids| ids.split('/').next()?.parse().ok());
        let Some(tid) = tid else { continue };
        let thread = threads.entry(tid).or_default();
        thread.stints += 1;
        thread.run_ns += run;
        thread.delay_ns += delay;
        thread.off_ns += off;
    }
    threads
}

/// Milliseconds with three decimals, in nanoseconds.
fn milli(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.')?;
    if part.len() != 3 {
        return None;
    }
    let micros = whole.parse::<u64>().ok()? * 1000 + part.parse::<u64>().ok()?;
    Some(micros * 1000)
}

/// A histogram with a bucket for each power of two of microseconds: `[1]` is two and three of them.
pub(crate) type Log2 = Vec<u64>;

/// The bucket of a time.
pub(crate) fn log2_bucket(time_ns: u64) -> usize {
    match (time_ns / 1000).checked_ilog2() {
        Some(log) => log as usize,
        None => 0,
    }
}

/// Reads what `runqlat -L` prints: a histogram for each thread id.
pub(crate) fn runqlat(text: &str) -> BTreeMap<u32, Log2> {
    let mut threads: BTreeMap<u32, Log2> = BTreeMap::new();
    let mut tid = None;
    for line in text.lines() {
        if let Some(rest) = line.trim().strip_prefix("tid = ") {
            tid = rest
                .split_whitespace()
                .next()
                .and_then(|id| id.parse().ok());
            continue;
        }
        // `      2 -> 3          : 14       |****     |`
        let Some((range, rest)) = line.split_once(':') else {
            continue;
        };
        let first = range
            .split("->")
            .next()
            .and_then(|first| first.trim().parse::<u64>().ok());
        let count = rest
            .split_whitespace()
            .next()
            .and_then(|count| count.parse::<u64>().ok());
        let (Some(tid), Some(first), Some(count)) = (tid, first, count) else {
            continue;
        };
        let buckets = threads.entry(tid).or_default();
        let bucket = log2_bucket(first * 1000);
        if buckets.len() <= bucket {
            buckets.resize(bucket + 1, 0);
        }
        buckets[bucket] += count;
    }
    threads
}

/// The line that `cyclictest -q -N` prints of its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cyclictest {
    pub(crate) tid: u32,
    pub(crate) cycles: u64,
    pub(crate) average_ns: u64,
}

/// `T: 0 ( 1234) P: 0 I:1000 C:   3000 Min:      2 Act:    5 Avg:    8 Max:      120`
pub(crate) fn cyclictest(text: &str) -> Option<Cyclictest> {
    let line = text
        .lines()
        .rev()
        .find(|line| line.trim_start().starts_with("T:"))?;
    let after = |key: &str| -> Option<u64> {
        let rest = &line[line.find(key)? + key.len()..];
        let digits = rest
            .trim_start()
            .split(|c: char| !c.is_ascii_digit())
            .next()?;
        digits.parse().ok()
    };
    Some(Cyclictest {
        tid: u32::try_from(after("(")?).ok()?,
        cycles: after(" C:")?,
        average_ns: after("Avg:")?,
    })
}

/// A row of the table of spans that we export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) tid: u32,
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) start_unix_ns: u64,
    pub(crate) duration_ns: u64,
    /// Where it ran or queued; 0 if that is not known.
    pub(crate) cpu: usize,
    pub(crate) contended_ns: u64,
    pub(crate) throttled_ns: u64,
    pub(crate) culprit: String,
}

impl Span {
    /// How much of it lies between two moments.
    pub(crate) fn within(&self, from_ns: u64, until_ns: u64) -> u64 {
        let end_ns = self.start_unix_ns + self.duration_ns;
        end_ns
            .min(until_ns)
            .saturating_sub(self.start_unix_ns.max(from_ns))
    }
}

/// Reads the table; the columns are found by their names.
pub(crate) fn spans(csv: &str) -> Option<Vec<Span>> {
    let mut lines = csv.lines();
    let names = fields(lines.next()?);
    let place = |name: &str| names.iter().position(|its| its == name);
    let [tid, state, reason] = [place("tid")?, place("state")?, place("reason")?];
    let [start, duration] = [place("start_unix_ns")?, place("duration_ns")?];
    let [contended, throttled] = [place("contended_ns")?, place("throttled_ns")?];
    let [culprit, cpu] = [place("culprit_comm")?, place("cpu")?];
    lines
        .map(|line| {
            let row = fields(line);
            let number = |place: usize| match row.get(place).map(String::as_str) {
                Some("") => Some(0),
                Some(text) => text.parse().ok(),
                None => None,
            };
            Some(Span {
                tid: u32::try_from(number(tid)?).ok()?,
                state: row.get(state)?.clone(),
                reason: row.get(reason)?.clone(),
                start_unix_ns: number(start)?,
                duration_ns: number(duration)?,
                cpu: usize::try_from(number(cpu)?).ok()?,
                contended_ns: number(contended)?,
                throttled_ns: number(throttled)?,
                culprit: row.get(culprit)?.clone(),
            })
        })
        .collect()
}

/// The fields of a line of a table; quotes are doubled inside of quotes. Names with line breaks are none of
/// ours.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            c => {
                if let Some(last) = fields.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    fields
}

/// The number after a name at the beginning of a line: `ctxt 123`, `VmRSS: 1 kB`, `name{a="b"} 5`.
pub(crate) fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().find_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timehist_is_summed_by_thread() {
        let text = "\
Samples do not have callchains.
           time    cpu  task name                       wait time  sch delay   run time
                        [tid/pid]                          (msec)     (msec)     (msec)
--------------- ------  ------------------------------  ---------  ---------  ---------
    6513.052379 [0001]  spinner-1[815/812]                  2.997      0.001      3.000
    6513.055379 [0001]  <idle>                              2.997      0.000      3.000
    6513.058379 [0001]  a b[812]                            0.000      0.250      1.500
    6513.061379 [0001]  spinner-1[815/812]                  6.003      0.000      0.000
";
        let threads = timehist(text);
        assert_eq!(threads.len(), 2);
        let expected = Timehist {
            stints: 2,
            off_ns: 9_000_000,
            delay_ns: 1000,
            run_ns: 3_000_000,
        };
        assert_eq!(threads.get(&815), Some(&expected));
        assert_eq!(threads.get(&812).map(|its| its.run_ns), Some(1_500_000));
    }

    #[test]
    fn buckets_are_powers_of_two_of_microseconds() {
        let bounds = [0, 999, 1000, 1999, 2000, 3999, 4000, 1_000_000].map(log2_bucket);
        assert_eq!(bounds, [0, 0, 0, 0, 1, 1, 2, 9]);
        let text = "Tracing run queue latency... Hit Ctrl-C to end.\n\n\
                    tid = 815 spinner-1\n     usecs               : count    distribution\n\
                    \x20        0 -> 1          : 3        |****    |\n\
                    \x20        2 -> 3          : 14       |********|\n\n\
                    tid = 7 x\n     usecs               : count    distribution\n\
                    \x20      512 -> 1023       : 1        |********|\n";
        let threads = runqlat(text);
        assert_eq!(threads.get(&815), Some(&vec![3, 14]));
        assert_eq!(threads.get(&7).map(|its| its[9]), Some(1));
    }

    #[test]
    fn a_line_of_cyclictest_is_read() {
        let text = "# /dev/cpu_dma_latency set to 0us\n\
                    T: 0 ( 1234) P: 0 I:1000 C:   3000 Min:   2345 Act:    5 Avg:    8000 Max:   120000\n";
        let expected = Cyclictest {
            tid: 1234,
            cycles: 3000,
            average_ns: 8000,
        };
        assert_eq!(cyclictest(text), Some(expected));
        assert_eq!(cyclictest("nothing"), None);
    }

    #[test]
    fn spans_are_found_by_the_names_of_their_columns() {
        let csv = "tid,comm,state,reason,start_unix_ns,duration_ns,cpu,contended_ns,throttled_ns,culprit_comm\n\
                   5,\"a,\"\"b\",blocked,lock,100,20,,,,\n\
                   5,a,runnable,,120,30,1,10,20,\"x,y\"\n";
        let spans = spans(csv).expect("a table");
        assert_eq!(spans.len(), 2);
        assert_eq!((&*spans[0].reason, spans[0].duration_ns), ("lock", 20));
        assert_eq!((spans[1].contended_ns, spans[1].throttled_ns), (10, 20));
        assert_eq!((&*spans[1].culprit, spans[1].cpu), ("x,y", 1));
        assert_eq!(spans[1].within(125, 1000), 25);
        assert_eq!(spans[1].within(0, 120), 0);
        assert_eq!(super::spans("tid,comm\n"), None);
    }

    #[test]
    fn numbers_are_found_after_their_names() {
        assert_eq!(number_after("cpu 1 2\nctxt 345\n", "ctxt "), Some(345));
        let status = "voluntary_ctxt_switches:\t12\n";
        assert_eq!(number_after(status, "voluntary_ctxt_switches:"), Some(12));
        assert_eq!(number_after("a 1\n", "b"), None);
    }
}
