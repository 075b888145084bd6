//! What is tried in each guest: tests of the privileged suites, by name. Left out are those that take a machine
//! which is fast enough to be stormed, since an emulated one is not.

/// A check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    /// What it is asked for by, and its row in the table.
    pub(super) name: &'static str,
    /// The file of tests that it is in.
    pub(super) suite: &'static str,
    pub(super) test: &'static str,
    /// It is in the short form.
    pub(super) is_short: bool,
}

const fn row(name: &'static str, suite: &'static str, test: &'static str, is_short: bool) -> Check {
    Check {
        name,
        suite,
        test,
        is_short,
    }
}

/// All, in the order in which they are done; what stops the clock or takes CPUs away comes last.
#[rustfmt::skip]
pub(super) const CHECKS: &[Check] = &[
    row("check", "privileged_kernel", "this_kernel_has_what_is_needed", true),
    row("thirds", "privileged_kernel", "spinners_share_a_cpu_as_the_kernel_counts", true),
    row("sleep", "privileged_attach", "a_sleeper_is_blocked", false),
    row("mutex", "privileged_attach", "the_time_that_a_mutex_is_held_is_blocked_time_of_the_waiter", false),
    row("schedstat", "privileged_attach", "run_time_and_run_queue_delay_agree_with_schedstat", false),
    row("storm", "privileged_attach", "default_rings_lose_nothing_in_a_storm", false),
    row("quota", "privileged_kernel", "a_quota_is_told_from_the_rest", true),
    row("culprit", "privileged_why", "the_hog_is_named_with_its_share", false),
    row("interrupts", "privileged_why", "interrupts_are_named_and_not_whom_they_interrupt", false),
    row("spinlock", "privileged_why", "spinlocks_that_sleep_are_locks_of_the_kernel", false),
    row("wakers", "privileged_why_source", "wakers_are_told_and_belong_to_their_waits", false),
    row("calls", "privileged_why_source", "system_calls_that_threads_wait_in_are_told", false),
    row("births", "privileged_source", "births_names_and_programs_are_told", false),
    row("iterator", "privileged_source", "the_task_iterator_agrees_with_proc", false),
    row("other-clock", "privileged_source", "the_other_clock_works_without_stamps", false),
    row("kill", "privileged_service", "a_kill_leaves_nothing_in_the_kernel", false),
    row("host", "privileged_kernel", "the_whole_host_is_accounted_for", false),
    row("affinity", "privileged_kernel", "threads_stay_on_the_cpus_that_they_may_use", false),
    row("sched-ext", "privileged_kernel", "a_scheduler_of_sched_ext_is_counted_as_the_kernel_counts", false),
    row("hotplug", "privileged_kernel", "cpus_that_go_and_come_lose_nothing", true),
    row("clock-step", "privileged_kernel", "a_step_of_the_clock_changes_no_figure", true),
    row("suspend", "privileged_kernel", "time_asleep_is_nobodys", false),
];
