#!/usr/bin/env bash
# Runs Slurm on this machine as its only node, from Debian's packages, as root:
#   apt-get install --no-install-recommends slurm-wlm munge
#   bash docs/one_node_slurm.sh start DIR; export SLURM_CONF=DIR/slurm.conf; sinfo
#   bash docs/one_node_slurm.sh stop DIR
# All state and logs are in DIR. Without cgroups and accounting, so that it runs in a container too.
set -euo pipefail
action=$1 dir=$(realpath -m "$2")
munge_socket=$dir/munge.socket
export SLURM_CONF=$dir/slurm.conf

start() {
  mkdir -p "$dir/state" "$dir/spool"
  (umask 077 && head -c 1024 /dev/urandom > "$dir/munge.key")
  munged --force --key-file "$dir/munge.key" --socket "$munge_socket" --num-threads 2 \
    --pid-file "$dir/munged.pid" --log-file "$dir/munged.log" --seed-file "$dir/munge.seed"
  cat > "$SLURM_CONF" <<CONF
ClusterName=one
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$munge_socket
CredType=cred/munge
SlurmctldPort=${SLURMCTLD_PORT:-16817}
SlurmdPort=${SLURMD_PORT:-16818}
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldTimeout=30
SchedulerParameters=sched_interval=2
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
  slurmctld
  slurmd
  for _ in $(seq 60); do
    if [ "$(sinfo --noheader --format=%T 2> /dev/null)" = idle ]; then
      echo "Slurm is up: export SLURM_CONF=$SLURM_CONF"
      return
    fi
    sleep 0.5
  done
  echo "Slurm did not come up: see $dir/*.log" >&2
  stop
  exit 1
}

stop() {
  for name in slurmd slurmctld munged; do
    if [ -e "$dir/$name.pid" ]; then kill "$(cat "$dir/$name.pid")" || true; fi
  done
}

case $action in
  start | stop) $action ;;
  *) echo "usage: $0 start|stop DIR" >&2 && exit 2 ;;
esac
