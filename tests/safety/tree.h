/* A made-up file tree (/proc, /sys, /dev) under a folder of its own. Ends the test on errors. */
#ifndef TESTS_SAFETY_TREE_H
#define TESTS_SAFETY_TREE_H

/* Writes text to root/path; path begins with a slash. Folders are made as needed. */
void tree_put(const char *root, const char *path, const char *text);
/* Removes the root and all below it. */
void tree_remove(const char *root);

#endif
