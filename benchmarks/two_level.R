# Draws of an incomplete two-level table by R: 2l.pan of mice, and jomo.
# Arguments: CSV with columns group, x, y; number of draws; seed; method; output CSV.
suppressMessages({library(mice)})
args <- commandArgs(trailingOnly = TRUE)
data <- read.csv(args[1]); m <- as.integer(args[2]); seed <- as.integer(args[3])
data$group <- as.integer(as.factor(data$group))
if (args[4] == "jomo") {
  suppressMessages(library(jomo))
  set.seed(seed)
  imp <- suppressWarnings(jomo(data[c("x", "y")], clus = data["group"], nburn = 500,
                               nbetween = 100, nimp = m, output = 0))
  out <- subset(imp, Imputation > 0)[c("x", "y")]
} else {
  start <- mice(data, maxit = 0)
  predictors <- start$predictorMatrix
  predictors[, "group"] <- -2
  predictors["x", "y"] <- 3; predictors["y", "x"] <- 3; predictors["group", ] <- 0
  method <- start$method
  method[c("x", "y")] <- args[4]
  imp <- mice(data, m = m, maxit = 5, method = method, predictorMatrix = predictors,
              seed = seed, printFlag = FALSE)
  out <- complete(imp, "long")[c("x", "y")]
}
write.csv(out, args[5], row.names = FALSE)
