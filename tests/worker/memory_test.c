/* Pages of a file that cannot be had are found before somebody reads them; and which file is mapped
 * at an address. */
#include "worker/memory.h"
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MIB = 1 << 20, FILE_BYTES = 20 * MIB };

static char path[] = "/tmp/rocmforge memory \xc3\xa4-XXXXXX"; /* names are not only letters */
static char *map;
static long page;

static void bad_pages(void)
{
    const void *bad = NULL;
    CHECK_INT(memory_check(map, FILE_BYTES, &bad), 0);
    CHECK_INT(memory_check(map + 5, 1, &bad), 0);
    CHECK_INT(memory_check(map + 5, 0, &bad), 0);
    CHECK(!bad);
    CHECK(truncate(path, 9 * MIB + 100) == 0);
    CHECK_INT(memory_check(map, 9 * MIB + 100, &bad), 0); /* (the rest of that page is zeros) */
    if (memory_check(map, FILE_BYTES, &bad) == 0) {
        printf("this kernel cannot say it: Linux 5.14 can\n");
        return;
    }
    CHECK(bad == map + 9 * MIB + page);
    CHECK_INT(memory_check(map + 12 * MIB + 7, 100, &bad), -EIO);
    CHECK(bad == map + 12 * MIB + 7); /* never before what was asked for */
    CHECK_INT(memory_check(map + 7, 9 * MIB, &bad), 0);
    struct err e = {0};
    CHECK_INT(memory_check_file(map, 9 * MIB, &e), 0);
    CHECK_INT(memory_check_file(map + 12 * MIB, 100, &e), ERR_MODEL_CHANGED); /* it was cut */
    CHECK(strstr(e.detail, "byte 12582912 of ") && strstr(e.detail, path));
}

/* A page that cannot be read although the file reaches so far: the disk. */
static void whose_fault(void)
{
    struct memory_file f;
    CHECK(truncate(path, FILE_BYTES) == 0);
    memory_file_at(map + 3 * MIB, &f);
    CHECK_INT(memory_file_error(&f), ERR_MODEL_IO);
    f.inode++; /* another file in its place */
    CHECK_INT(memory_file_error(&f), ERR_MODEL_CHANGED);
    f = (struct memory_file){.path = "/nonexistent/file"};
    CHECK_INT(memory_file_error(&f), ERR_MODEL_CHANGED);
}

static void which_file(void)
{
    struct memory_file f;
    struct stat st;
    CHECK(stat(path, &st) == 0);
    memory_file_at(map + 3 * MIB + 11, &f);
    CHECK(strcmp(f.path, path) == 0);
    CHECK(f.offset == 3 * MIB + 11 && f.inode == st.st_ino);
    CHECK(munmap(map, 2 * MIB) == 0); /* the first page there is, is no longer the file's first */
    memory_file_at(map + 3 * MIB + 11, &f);
    CHECK(f.offset == 3 * MIB + 11);
    memory_file_at(map, &f);
    CHECK(!*f.path && f.inode == 0);
    char on_stack;
    memory_file_at(&on_stack, &f);
    CHECK(!*f.path);
    memory_file_at((const void *)(uintptr_t)memory_file_at, &f);
    CHECK(strstr(f.path, "worker_memory_test"));
}

int main(void)
{
    page = sysconf(_SC_PAGESIZE);
    int fd = mkstemp(path);
    CHECK(fd >= 0 && ftruncate(fd, FILE_BYTES) == 0);
    map = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    bad_pages();
    whose_fault();
    which_file();
    close(fd);
    unlink(path);
    return 0;
}
