# Rscript mice.R IN.csv OUT M METHOD SEED
#
# Draws of the rows whose column .train is 0, by R's mice, which learns from the others
# alone; the draws one below the other in OUT.
suppressMessages(library(mice))
options <- commandArgs(TRUE)
table <- read.csv(options[1], check.names = FALSE)
train <- table$.train == 1
table$.train <- NULL
m <- as.integer(options[3])
imputed <- suppressWarnings(mice(
  table, m = m, maxit = 5, method = options[4], ignore = !train,
  printFlag = FALSE, seed = as.integer(options[5])
))
draws <- do.call(rbind, lapply(1:m, function(k) complete(imputed, k)[!train, ]))
write.csv(draws, options[2], row.names = FALSE)
