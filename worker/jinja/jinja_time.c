/* strftime with the words of the C locale. Reads the time zone through localtime_r. */
#include "worker/jinja/jinja_time.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *const days[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                   "Thursday", "Friday", "Saturday"};
static const char *const months[] = {"January",   "February", "March",    "April",
                                     "May",       "June",     "July",     "August",
                                     "September", "October",  "November", "December"};

/* The ISO 8601 week and its year: the week belongs to the year of its Thursday. */
static int iso_week(const struct tm *t, int *ret_year)
{
    int weekday = (t->tm_wday + 6) % 7;      /* Monday is 0 */
    int thursday = t->tm_yday - weekday + 3; /* day of the year */
    int year = t->tm_year + 1900;
    for (int turn = 0; turn < 2; turn++) {
        int y = thursday < 0 ? year - 1 : year;
        int length = y % 4 == 0 && (y % 100 != 0 || y % 400 == 0) ? 366 : 365;
        if (thursday < 0) {
            thursday += length;
            year--;
        } else if (thursday >= length) {
            thursday -= length;
            year++;
        }
    }
    *ret_year = year;
    return thursday / 7 + 1;
}

static void put_number(struct jinja *j, int64_t n, int width, char pad, char flag)
{
    char text[32];
    pad = flag == '-' ? 0 : flag == '_' ? ' ' : flag == '0' ? '0' : pad;
    int len = snprintf(text, sizeof(text), "%" PRId64, n);
    if (pad && len < width) {
        jinja_put_fill(j, pad, (size_t)(width - len));
    }
    jinja_put(j, text, (size_t)len);
}

static void put_word(struct jinja *j, const char *word, size_t n, char flag)
{
    for (size_t i = 0; i < n; i++) {
        bool lower = word[i] >= 'a' && word[i] <= 'z';
        char c = (char)(flag == '^' && lower ? word[i] - 32 : word[i]);
        jinja_put(j, &c, 1);
    }
}

static void put_parts(struct jinja *j, const struct tm *t, const char *format, size_t n);

static void put_field(struct jinja *j, const struct tm *t, char c, char flag)
{
    int year = t->tm_year + 1900, hour12 = t->tm_hour % 12 ? t->tm_hour % 12 : 12;
    int monday = (t->tm_wday + 6) % 7, iso_year, week = iso_week(t, &iso_year);
    switch (c) {
    case 'Y':
        put_number(j, year, 1, '0', flag);
        break;
    case 'G':
        put_number(j, iso_year, 1, '0', flag);
        break;
    case 'C':
        put_number(j, year / 100, 2, '0', flag);
        break;
    case 'y':
        put_number(j, year % 100, 2, '0', flag);
        break;
    case 'g':
        put_number(j, iso_year % 100, 2, '0', flag);
        break;
    case 'm':
        put_number(j, t->tm_mon + 1, 2, '0', flag);
        break;
    case 'd':
        put_number(j, t->tm_mday, 2, '0', flag);
        break;
    case 'e':
        put_number(j, t->tm_mday, 2, ' ', flag);
        break;
    case 'j':
        put_number(j, t->tm_yday + 1, 3, '0', flag);
        break;
    case 'H':
        put_number(j, t->tm_hour, 2, '0', flag);
        break;
    case 'k':
        put_number(j, t->tm_hour, 2, ' ', flag);
        break;
    case 'I':
        put_number(j, hour12, 2, '0', flag);
        break;
    case 'l':
        put_number(j, hour12, 2, ' ', flag);
        break;
    case 'M':
        put_number(j, t->tm_min, 2, '0', flag);
        break;
    case 'S':
        put_number(j, t->tm_sec, 2, '0', flag);
        break;
    case 'f':
        jinja_put_str(j, "000000");
        break;
    case 's':
        put_number(j, j->now_unix_s, 1, '0', flag);
        break;
    case 'u':
        put_number(j, monday + 1, 1, '0', flag);
        break;
    case 'w':
        put_number(j, t->tm_wday, 1, '0', flag);
        break;
    case 'U':
        put_number(j, (t->tm_yday + 7 - t->tm_wday) / 7, 2, '0', flag);
        break;
    case 'W':
        put_number(j, (t->tm_yday + 7 - monday) / 7, 2, '0', flag);
        break;
    case 'V':
        put_number(j, week, 2, '0', flag);
        break;
    case 'a':
        put_word(j, days[t->tm_wday], 3, flag);
        break;
    case 'A':
        put_word(j, days[t->tm_wday], strlen(days[t->tm_wday]), flag);
        break;
    case 'b':
    case 'h':
        put_word(j, months[t->tm_mon], 3, flag);
        break;
    case 'B':
        put_word(j, months[t->tm_mon], strlen(months[t->tm_mon]), flag);
        break;
    case 'p':
        jinja_put_str(j, t->tm_hour < 12 ? (flag == '#' ? "am" : "AM") : flag == '#' ? "pm" : "PM");
        break;
    case 'P':
        jinja_put_str(j, t->tm_hour < 12 ? "am" : "pm");
        break;
    case 'D':
    case 'x':
        put_parts(j, t, "%m/%d/%y", 8);
        break;
    case 'F':
        put_parts(j, t, "%Y-%m-%d", 8);
        break;
    case 'T':
    case 'X':
        put_parts(j, t, "%H:%M:%S", 8);
        break;
    case 'R':
        put_parts(j, t, "%H:%M", 5);
        break;
    case 'r':
        put_parts(j, t, "%I:%M:%S %p", 11);
        break;
    case 'c':
        put_parts(j, t, "%a %b %e %H:%M:%S %Y", 20);
        break;
    case 'n':
        jinja_put(j, "\n", 1);
        break;
    case 't':
        jinja_put(j, "\t", 1);
        break;
    case '%':
        jinja_put(j, "%", 1);
        break;
    case 'z':
    case 'Z':
        break;
    default:
        jinja_fail(j, "strftime_now: unknown field '%%%c'", c);
    }
}

static void put_parts(struct jinja *j, const struct tm *t, const char *format, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char flag = 0;
        if (format[i] != '%' || i + 1 == n) {
            jinja_put(j, &format[i], 1);
            continue;
        }
        i++;
        if (i + 1 < n && strchr("-_0^#", format[i]) && format[i]) {
            flag = format[i++];
        }
        jinja_step(j, 4);
        put_field(j, t, format[i], flag);
    }
}

void jinja_time_put(struct jinja *j, struct jinja_value format)
{
    struct tm t;
    time_t now = (time_t)j->now_unix_s;
    if (!localtime_r(&now, &t)) {
        jinja_fail(j, "strftime_now: the time is out of range");
    }
    put_parts(j, &t, format.s, format.n);
}
