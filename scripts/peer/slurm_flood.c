/* Submits jobs to Slurm from several threads of one process, so that no fork of sbatch is measured.
 *
 *     gcc -O2 -o flood slurm_flood.c -lslurm -lpthread
 *     ./flood JOBS THREADS NODES GPUS_PER_NODE hold|run
 *
 * Prints one line of JSON: how many a second were acknowledged, and how many failed. With 0 JOBS it goes on until SIGTERM,
 * repeats what failed, and prints the id of each job that was acknowledged. */
#include <pthread.h>
#include <signal.h>
#include <slurm/slurm.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct load {
    int jobs, nodes, hold;
    char gpus[32];
    atomic_int next, failed;
};

static atomic_int stopped;

static void stop(int signal)
{
    (void)signal;
    atomic_store(&stopped, 1);
}

static void describe(const struct load *load, job_desc_msg_t *job, char **environment)
{
    slurm_init_job_desc_msg(job);
    job->name = "flood";
    job->script = "#!/bin/sh\ntrue\n";
    job->work_dir = "/tmp";
    job->std_in = job->std_out = job->std_err = "/dev/null";
    job->environment = environment;
    job->env_size = 1;
    job->min_nodes = job->max_nodes = job->num_tasks = job->min_cpus = load->nodes;
    job->time_limit = 60;
    job->user_id = getuid();
    job->group_id = getgid();
    if (load->gpus[0])
        job->tres_per_node = (char *)load->gpus;
    if (load->hold)
        job->priority = 0;
}

static void *submit(void *argument)
{
    struct load *load = argument;
    char *environment[] = {"PATH=/usr/bin:/bin", NULL};
    while (!atomic_load(&stopped) && (load->jobs == 0 || atomic_fetch_add(&load->next, 1) < load->jobs)) {
        job_desc_msg_t job;
        submit_response_msg_t *answer = NULL;
        describe(load, &job, environment);
        if (slurm_submit_batch_job(&job, &answer) != SLURM_SUCCESS) {
            atomic_fetch_add(&load->failed, 1);
            usleep(5000);
            continue;
        }
        if (load->jobs == 0) {
            /* One call, so that lines of several threads do not mix. */
            printf("%u\n", answer->job_id);
            fflush(stdout);
        }
        slurm_free_submit_response_response_msg(answer);
    }
    return NULL;
}

int main(int count, char **words)
{
    struct load load = {0};
    struct timespec began, ended;
    pthread_t threads[256];
    if (count != 6 || atoi(words[2]) < 1 || atoi(words[2]) > 256)
        return fprintf(stderr, "JOBS THREADS NODES GPUS_PER_NODE hold|run\n"), 2;
    load.jobs = atoi(words[1]);
    load.nodes = atoi(words[3]);
    load.hold = strcmp(words[5], "hold") == 0;
    if (atoi(words[4]) > 0)
        snprintf(load.gpus, sizeof load.gpus, "gres:gpu:%d", atoi(words[4]));
    signal(SIGTERM, stop);
    slurm_init(NULL);
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (int at = 0; at < atoi(words[2]); at++)
        pthread_create(&threads[at], NULL, submit, &load);
    for (int at = 0; at < atoi(words[2]); at++)
        pthread_join(threads[at], NULL);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double seconds = (ended.tv_sec - began.tv_sec) + (ended.tv_nsec - began.tv_nsec) / 1e9;
    if (load.jobs > 0)
        printf("{\"per_second\": %.1f, \"failed\": %d}\n", load.jobs / seconds, atomic_load(&load.failed));
    return 0;
}
