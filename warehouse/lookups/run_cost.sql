-- The specs that a run wanted, and the seconds and GPU-hours that it took.
SELECT spec_ids, seconds, gpu_hours
FROM runs
WHERE run_id = $run_id;
